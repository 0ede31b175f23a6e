"""`timeline` in a terminal: each sub-step's attempts and waits as a bar over the job's time. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from steplog.projections.timeline import SubStepLine, Timeline
from steplog.projections.timeline_axis import Axis, gap_s
from steplog.terminal.look import Look
from steplog.terminal.text import one_line, pad, shorten, width
from steplog.terminal.times import duration, since

COLUMNS_MIN = 60
_LABELS_MAX = 32
_BAR_MIN = 20
_NOTES_MIN = 21
_TICK_COLUMNS = 9
_INDENT = 2

_CELLS: dict[str, tuple[str, str, str | None]] = {
    "completed": ("█", "#", "green"),
    "failed": ("▒", "x", "red"),
    "interrupted": ("▚", "?", "yellow"),
    "in_progress": ("▓", ">", "cyan"),
    "skipped": ("▁", "_", "bright_black"),
    "wait": ("─", "-", "bright_black"),
    "mark": ("◇", "o", None),
    "crash": ("┊", "!", "red"),
    "gap": ("·", ".", "bright_black"),
    "edge": ("┆", "|", "cyan"),
    " ": (" ", " ", None),
}
_WORDS = {"in_progress": "in progress", "crash": "crash gap", "gap": "not running", "mark": "no attempt", "edge": "now"}


def timeline_lines(timeline: Timeline, name: str, look: Look, columns: int) -> list[str]:
    """The job, an axis, a line for each phase and sub-step, the gaps, and what the signs mean; in so many columns."""
    axis = Axis.of(timeline)
    labels = [one_line(line["name"]) for phase in timeline["phases"] for line in phase["sub_steps"]]
    label_columns = min(max(map(width, labels), default=0) + _INDENT, _LABELS_MAX)
    notes = [_note(line, timeline) for phase in timeline["phases"] for line in phase["sub_steps"]]
    columns = max(columns, COLUMNS_MIN)
    room = columns - label_columns - 4
    note_columns = min(max(map(width, notes), default=0), max(columns // 4, _NOTES_MIN), room - _BAR_MIN)
    bar_columns = room - note_columns
    lines = [_header(timeline, name, look), f"{' ' * (label_columns + 2)}{_scale(axis, bar_columns)}"]
    used: set[str] = set()
    for phase in timeline["phases"]:
        lines.append(look.bold(shorten(one_line(phase["name"]), label_columns, look.ellipsis)))
        for line in phase["sub_steps"]:
            cells = _cells(timeline, axis, line, bar_columns)
            used.update(cells)
            label = shorten(f"{' ' * _INDENT}{one_line(line['name'])}", label_columns, look.ellipsis)
            note = shorten(_note(line, timeline), note_columns, look.ellipsis)
            lines.append(f"{pad(label, label_columns)}  {_painted(cells, look)}  {note}".rstrip())
    gaps = (shorten(line, columns, look.ellipsis) for line in _gap_lines(timeline, axis, look))
    lines += [*gaps, *_legend(used, look, columns)]
    return [look.fit(line) for line in lines if line]


def _header(timeline: Timeline, name: str, look: Look) -> str:
    took = since(timeline["began_at"], timeline["edge_at"])
    parts = [look.bold(one_line(timeline["workflow"])), look.job(name), look.status(timeline["status"])]
    return "  ".join([*parts, f"event {timeline['version']}", took])


def _scale(axis: Axis, columns: int) -> str:
    """Times along the axis, each beginning where it stands."""
    line = ""
    for place, label in axis.ticks(max(columns // _TICK_COLUMNS, 2)):
        at = round(place * (columns - 1))
        if at + len(label) <= columns:
            line = f"{line.ljust(at)}{label}"
    return line


def _cells(timeline: Timeline, axis: Axis, line: SubStepLine, columns: int) -> list[str]:
    """What stands in each column of the bar: attempts over marks over waits over gaps."""
    cells = [" "] * columns

    def fill(kind: str, start: str, end: str | None) -> None:
        first = round(axis.place(start) * (columns - 1))
        last = round(axis.place(end or timeline["edge_at"]) * (columns - 1))
        for at in range(first, max(last, first + 1)):
            cells[at] = kind

    for gap in timeline["gaps"]:
        if gap["cause"] == "crashed" or gap_s(gap, timeline) * (columns - 1) >= axis.drawn[-1]:
            fill("crash" if gap["cause"] == "crashed" else "gap", gap["started_at"], gap["ended_at"])
    for wait in line["waits"]:
        fill("wait", wait["started_at"], wait["ended_at"])
    for mark in line["marks"]:
        fill("mark", mark["at"], mark["at"])
    for attempt in line["attempts"]:
        fill(attempt["status"], attempt["started_at"], attempt["ended_at"])
    if timeline["live"]:
        cells[-1] = "edge"
    return cells


def _painted(cells: list[str], look: Look) -> str:
    runs = ((kind, len(list(run))) for kind, run in groupby(cells))
    return "".join(look.paint(_sign(kind, look) * count, _CELLS[kind][2]) for kind, count in runs)


def _sign(kind: str, look: Look) -> str:
    glyph, ascii, _ = _CELLS[kind]
    return glyph if look.unicode else ascii


def _note(line: SubStepLine, timeline: Timeline) -> str:
    """How the sub-step stands, in a few words."""
    attempts, status = line["attempts"], line["status"]
    parts = [status.replace("_", " ") if status else "no longer in the plan"]
    if items := line["items"]:
        parts.append(f"{items['completed']}/{items['total']} items")
    if attempts:
        parts.append(since(attempts[-1]["started_at"], attempts[-1]["ended_at"] or timeline["edge_at"]))
    if len(attempts) > 1:
        parts.append(f"attempt {attempts[-1]['number']}")
    if line["marks"] and line["marks"][-1]["reason"] and status in ("skipped", "failed"):
        parts.append(one_line(line["marks"][-1]["reason"]))
    return " ".join(parts)


def _gap_lines(timeline: Timeline, axis: Axis, look: Look) -> Iterator[str]:
    """Each crash, and each other gap that a person would notice; and that they are drawn shorter, where they are."""
    for gap in timeline["gaps"]:
        seconds = gap_s(gap, timeline)
        if gap["cause"] == "crashed":
            ended = f"taken over {duration(seconds)} later" if gap["ended_at"] else "nobody has taken over"
            at = since(timeline["began_at"], gap["started_at"])
            yield f"{look.glyph('stalled')} crashed: its process was last heard of at +{at}, {ended}"
        elif seconds >= 1 or gap["ended_at"] is None:
            reason = f": {one_line(gap['reason'])}" if gap["reason"] else ""
            yield f"{look.glyph(gap['cause'])} {gap['cause']} for {duration(seconds)}{reason}"
    if axis.cut_s:
        yield look.dim(f"times along the axis leave out {duration(axis.cut_s)} of that")


def _legend(used: set[str], look: Look, columns: int) -> Iterator[str]:
    words = [f"{_sign(kind, look)} {_WORDS.get(kind, kind)}" for kind in _CELLS if kind in used and kind != " "]
    line = ""
    for word in words:
        if line and width(f"{line}  {word}") > columns:
            yield look.dim(line)
            line = ""
        line = f"{line}  {word}" if line else word
    yield look.dim(line)
