"""The timeline as a picture: one SVG document that needs nothing else, light or dark as its reader prefers.

Here and not in `terminal`, because the status API hands the same picture out.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import Template

from steplog.eventstore.clock import seconds_between
from steplog.projections.svg_text import cut, escaped
from steplog.projections.timeline import Attempt, Gap, Mark, SubStepLine, Timeline, Wait
from steplog.projections.timeline_axis import Axis, gap_s, time_label

WIDTH = 1000
_MARGIN = 16
_LABELS = 220
_LEFT = _MARGIN + _LABELS
_CHART = WIDTH - _LEFT - 2 * _MARGIN
_TOP = 92
_ROW = 22
_BAR = 12
_LEGEND = 44
_COLUMN = 7.3
"""Pixels that a character of the picture's font takes."""
_BAR_MIN = 2.5

_TEMPLATE = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" role="img">
<title>$title</title>
<style>
svg { font: 12px "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.head { font-size: 15px; } .head, .phase { font-weight: bold; }
.edge { stroke-dasharray: 4 3; stroke-width: 1.5; } .hatch { stroke-width: 4; }
$light
@media (prefers-color-scheme: dark) {
$dark
}
</style>
<defs>
<pattern id="failed" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<path d="M0 0V5" class="hatch failed-ink"/></pattern>
<pattern id="unknown" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">
<path d="M0 0V5" class="hatch unknown-ink"/></pattern>
</defs>
<rect class="paper" width="$width" height="$height"/>
$body
</svg>
""")

_COLOURS = Template("""\
.paper { fill: $paper; } text { fill: $ink; } text.faint { fill: $faint; } text.crashed { fill: $failed; }
.rule { stroke: $rule; } .edge { stroke: $running; } .failed-ink { stroke: $failed; } .unknown-ink { stroke: $unknown; }
.completed { fill: $done; } .in_progress { fill: $running; } .skipped, .wait { fill: $wait; }
.failed { fill: url(#failed); stroke: $failed; } .interrupted { fill: url(#unknown); stroke: $unknown; }
.mark { fill: $paper; stroke: $faint; } .mark.failed { fill: $paper; stroke: $failed; }
.gap { fill: $wait; fill-opacity: .15; } .gap.crashed { fill: $failed; fill-opacity: .15; }""")
"""Written out once for each scheme, and without variables: not every viewer of SVG knows them."""

_LIGHT = {
    "paper": "#ffffff", "ink": "#1f2328", "faint": "#656d76", "rule": "#d8dee4", "done": "#1a7f37",
    "failed": "#cf222e", "unknown": "#bf8700", "running": "#0969da", "wait": "#8c959f",
}  # fmt: skip
_DARK = {
    "paper": "#0d1117", "ink": "#e6edf3", "faint": "#8d96a0", "rule": "#30363d", "done": "#3fb950",
    "failed": "#f85149", "unknown": "#d29922", "running": "#4493f8", "wait": "#6e7681",
}  # fmt: skip


def timeline_svg(timeline: Timeline) -> str:
    """The timeline as an SVG document; every text in it is escaped."""
    axis = Axis.of(timeline)
    rows = sum(1 + len(phase["sub_steps"]) for phase in timeline["phases"])
    bottom = _TOP + rows * _ROW + 6
    body = [*_heading(timeline, axis), *_gaps(timeline, axis, bottom), *_ticks(axis, bottom)]
    y = _TOP
    for phase in timeline["phases"]:
        body.append(_text(_MARGIN, y + 15, phase["name"], _LABELS, "phase"))
        y += _ROW
        for line in phase["sub_steps"]:
            body += _row(timeline, axis, line, y)
            y += _ROW
    if timeline["live"]:
        x = _x(axis, timeline["edge_at"])
        body.append(f'<path class="edge" d="M{x:.1f} {_TOP - 8}V{bottom}"><title>now</title></path>')
    body += _legend(bottom + 24)
    title = f"timeline of job {timeline['job_id']} ({timeline['workflow']}) at version {timeline['version']}"
    return _TEMPLATE.substitute(
        width=WIDTH,
        height=bottom + _LEGEND,
        title=escaped(title),
        light=_COLOURS.substitute(_LIGHT),
        dark=_COLOURS.substitute(_DARK),
        body="\n".join(body),
    )


def _heading(timeline: Timeline, axis: Axis) -> Iterator[str]:
    facts = (
        f"job {timeline['job_id']} · {timeline['status']} · event {timeline['version']} · {time_label(axis.passed[-1])}"
    )
    if axis.cut_s:
        facts += f" · times leave out {time_label(axis.cut_s)} of gaps"
    yield _text(_MARGIN, 26, timeline["workflow"], WIDTH - 2 * _MARGIN, "head", column=9.2)
    yield _text(_MARGIN, 46, facts, WIDTH - 2 * _MARGIN, "faint")


def _ticks(axis: Axis, bottom: int) -> Iterator[str]:
    for place, label in axis.ticks(9):
        x = _LEFT + place * _CHART
        yield f'<path class="rule" d="M{x:.1f} {_TOP - 4}V{bottom}"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{_TOP - 8}" text-anchor="middle">{label}</text>'


def _gaps(timeline: Timeline, axis: Axis, bottom: int) -> Iterator[str]:
    """A band each, with what it is written above, as far as that does not stand in another one's way."""
    free = float(_LEFT)
    for gap in timeline["gaps"]:
        start, end = _x(axis, gap["started_at"]), _x(axis, gap["ended_at"] or timeline["edge_at"])
        crashed = gap["cause"] == "crashed"
        if end - start < _BAR_MIN and not crashed and gap["ended_at"]:
            continue
        told = _of_gap(gap, timeline)
        width, kind = max(end - start, _BAR_MIN), "gap crashed" if crashed else "gap"
        yield f'<rect class="{kind}" x="{start:.1f}" y="{_TOP - 24}" width="{width:.1f}" height="{bottom - _TOP + 24}">'
        yield f"<title>{escaped(told)}</title></rect>"
        label = told.partition(":")[0]
        left = min(start, WIDTH - _MARGIN - len(label) * _COLUMN)
        if left >= free:
            yield _text(left, _TOP - 28, label, WIDTH, "crashed" if crashed else "faint")
            free = left + (len(label) + 1) * _COLUMN


def _of_gap(gap: Gap, timeline: Timeline) -> str:
    lasted = f" {time_label(gap_s(gap, timeline))}" if gap["ended_at"] or timeline["live"] else ""
    return f"{gap['cause']}{lasted}" + (f": {gap['reason']}" if gap["reason"] else "")


def _row(timeline: Timeline, axis: Axis, line: SubStepLine, y: int) -> Iterator[str]:
    yield _text(_MARGIN + 12, y + 15, line["name"], _LABELS - 20)
    for wait in line["waits"]:
        yield _span(axis, "wait", wait["started_at"], wait["ended_at"] or timeline["edge_at"], y + 9, 4, _of_wait(wait))
    for attempt in line["attempts"]:
        end = attempt["ended_at"] or timeline["edge_at"]
        yield _span(axis, attempt["status"], attempt["started_at"], end, y + 5, _BAR, _of_attempt(attempt, end))
        if attempt["ended_at"] is None:
            yield f'<path class="edge" d="M{_x(axis, end):.1f} {y + 2}V{y + _ROW - 2}"/>'
    yield from (_mark(axis, mark, y) for mark in line["marks"])
    if line["marks"] and not line["attempts"] and not line["waits"]:
        yield _beside(_x(axis, line["marks"][-1]["at"]), y, _of_mark(line["marks"][-1]))


def _beside(x: float, y: int, told: str) -> str:
    """A text where there is more room: behind the mark, or before it."""
    behind = WIDTH - _MARGIN - x - 10
    if behind >= x - 10 - _LEFT or len(told) * _COLUMN <= behind:
        return _text(x + 10, y + 15, told, behind, "faint")
    return _text(x - 10, y + 15, told, x - 10 - _LEFT, "faint", anchor="end")


def _span(axis: Axis, kind: str, start: str, end: str, y: int, height: int, told: str) -> str:
    left, right = _x(axis, start), _x(axis, end)
    shape = f'x="{left:.1f}" y="{y}" width="{max(right - left, _BAR_MIN):.1f}" height="{height}"'
    return f'<rect class="{kind}" {shape}><title>{escaped(told)}</title></rect>'


def _mark(axis: Axis, mark: Mark, y: int) -> str:
    place = f"M{_x(axis, mark['at']):.1f} {y + 6}l5 5l-5 5l-5 -5z"
    return f'<path class="mark {mark["kind"]}" d="{place}"><title>{escaped(_of_mark(mark))}</title></path>'


def _of_attempt(attempt: Attempt, end: str) -> str:
    error = attempt["error"]
    why = f"{error['type']}: {error['message']}" if error else attempt["reason"]
    took = time_label(seconds_between(attempt["started_at"], end))
    what = "compensation" if attempt["compensation"] else "attempt"
    return f"{what} {attempt['number']}: {attempt['status'].replace('_', ' ')}, {took}" + (f", {why}" if why else "")


def _of_wait(wait: Wait) -> str:
    return " ".join(str(part) for part in ("waits:", wait["kind"], wait["signal"], wait["due_at"]) if part)


def _of_mark(mark: Mark) -> str:
    return mark["kind"] + (f": {mark['reason']}" if mark["reason"] else "")


def _legend(y: int) -> Iterator[str]:
    x = float(_MARGIN)
    for kind in ("completed", "failed", "interrupted", "in_progress", "wait", "gap crashed", "gap", "mark"):
        if kind == "mark":
            yield f'<path class="mark" d="M{x + 7:.1f} {y - 10}l5 5l-5 5l-5 -5z"/>'
        else:
            height = 4 if kind == "wait" else _BAR
            top = y - 5 - height / 2
            yield f'<rect class="{kind}" x="{x:.1f}" y="{top:.1f}" width="14" height="{height}"/>'
        word = {"gap crashed": "crash gap", "gap": "not running", "mark": "no attempt"}.get(
            kind, kind.replace("_", " ")
        )
        yield _text(x + 20, y, word, 120, "faint")
        x += 20 + (len(word) + 2) * _COLUMN


def _x(axis: Axis, instant: str) -> float:
    return _LEFT + axis.place(instant) * _CHART


def _text(
    x: float, y: float, text: str, room: float, kind: str = "", *, anchor: str = "start", column: float = _COLUMN
) -> str:
    """The text, cut to the room there is; whole as the title where it is cut."""
    line = " ".join(text.split())
    shown = cut(line, int(room / column))
    whole = f"<title>{escaped(line)}</title>" if shown != line else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escaped(shown)}{whole}</text>'
