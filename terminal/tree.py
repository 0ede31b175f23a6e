"""A job as a tree of phases and sub-steps: what `show`, `run` and `replay` draw. Pure functions of the state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from steplog.projections.fan_out import counts_of
from steplog.projections.plan import Key, PhasePlan, Shape, SubStepPlan, key_of, key_of_place, split_key
from steplog.projections.readiness import has_begun, open_edges, unmet_needs
from steplog.projections.state import STOPPED, PhaseState, State, SubStepState
from steplog.terminal.look import Look
from steplog.terminal.text import escape, one_line, pad, short, shorten, width
from steplog.terminal.times import duration, relative, since

Detail = Literal["all", "current"]
"""Whose sub-steps are drawn: of every phase that has begun, or only of the one in progress."""

BAR_COLUMNS = 18
_STATUS_COLUMNS = 13
_TIME_COLUMNS = 8
_MESSAGE_COLUMNS = 100
_TRACE_LINES_MAX = 24


@dataclass(frozen=True, slots=True)
class View:
    """A job as of an instant, the way one stream shows it."""

    state: State
    name: str
    """The job's id as far as it has to be written."""
    now: str
    look: Look
    stalled: bool = False
    """Whether the process that runs the job is gone."""


def tree(view: View, detail: Detail = "all") -> list[str]:
    """The header, why the job stopped if it did, then a line for each phase and sub-step."""
    shape = Shape.of(view.state["plan"])
    rows = [row for phase in view.state["plan"]["phases"] for row in _phase_rows(view, shape, phase, detail)]
    columns = max((width(row.left) for row in rows), default=0)
    lines = [*summary(view), *(row.line(columns) for row in rows)]
    lines += [f"{view.look.glyph('tolerated')} {one_line(warning)}" for warning in view.state["warnings"]]
    return [view.look.fit(line) for line in lines]


def summary(view: View) -> list[str]:
    """The header, and why the job stopped if it did."""
    return [view.look.fit(line) for line in (header(view), *_why_stopped(view))]


def header(view: View) -> str:
    """Workflow, id, status, phase, progress, event and time on one line."""
    state, look = view.state, view.look
    phases = state["plan"]["phases"]
    begun = sum(state["phases"][phase["name"]]["status"] != "pending" for phase in phases)
    parts = [
        look.bold(one_line(state["workflow"])),
        look.job(view.name),
        look.status(state["status"]) if not view.stalled else f"{look.status('stalled')} (its process is gone)",
        f"phase {begun}/{len(phases)}" if len(phases) > 1 else "",
        f"{look.bar(state['done'], state['total'], BAR_COLUMNS)} {state['done']}/{state['total']}",
        f"event {state['version']}",
        since(state["created_at"], _end(view)),
    ]
    return look.fit("  ".join(part for part in parts if part))


def error_line(error: dict[str, object] | None, columns: int = _MESSAGE_COLUMNS) -> str:
    """An error's type and message on one line."""
    if not error:
        return ""
    return shorten(one_line(f"{error.get('type', 'Error')}: {error.get('message', '')}".rstrip(": ")), columns)


def failure_trace(state: State, look: Look) -> list[str]:
    """Where what failed the job was raised: the end of its traceback, or nothing where it has none."""
    recorded = str((state["error"] or {}).get("traceback") or "").rstrip().splitlines()
    left = len(recorded) - _TRACE_LINES_MAX
    shown = [f"{look.ellipsis} {left} more lines (-o json has them all)", *recorded[left:]] if left > 0 else recorded
    return [look.fit(look.dim(escape(line))) for line in shown]


# --- lines -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    left: str
    status: str
    time: str
    detail: str

    def line(self, columns: int) -> str:
        cells = f"{pad(self.left, columns)}  {pad(self.status, _STATUS_COLUMNS)} {pad(self.time, _TIME_COLUMNS)}"
        return f"{cells}  {self.detail}".rstrip()


def _end(view: View) -> str:
    """Where the job's time stands still: it ended, waits for a person, or its process is gone."""
    state = view.state
    if state["ended_at"]:
        return state["ended_at"]
    return state["recorded_at"] if view.stalled or state["status"] in STOPPED else view.now


def _why_stopped(view: View) -> Iterator[str]:
    state, look = view.state, view.look
    if state["error"]:
        where = one_line(f"{state['error']['phase']}/{state['error']['sub_step']}")
        yield f"{look.glyph('failed')} {where}: {error_line(state['error'])}"
    elif state["reason"] and state["status"] in ("parked", "paused", "cancelled"):
        yield f"{look.glyph(state['status'])} {one_line(state['reason'])}"
    if state["erased"]:
        yield f"{look.glyph('cancelled')} its secrets were erased: nothing of it can run any more"
    if state["requested"]:
        yield f"{look.glyph('paused')} {state['requested']} requested"


def _phase_rows(view: View, shape: Shape, plan: PhasePlan, detail: Detail) -> Iterator[_Row]:
    look, phase = view.look, view.state["phases"][plan["name"]]
    last = plan is view.state["plan"]["phases"][-1]
    branch, stem = ("└── ", "    ") if last else ("├── ", "│   ")
    yield _Row(
        f"{look.dim(branch)}{look.glyph(phase['status'])} {look.bold(one_line(plan['name']))}",
        look.word(phase["status"]),
        _phase_time(view, phase),
        look.dim(one_line(plan.get("description", ""))),
    )
    if phase["status"] == "pending" and not any(has_begun(step) for step in phase["sub_steps"].values()):
        return
    if detail == "current" and phase["status"] == "completed":
        return
    for step in plan["sub_steps"]:
        twig = f"{stem}└── " if step is plan["sub_steps"][-1] else f"{stem}├── "
        yield _sub_step_row(view, shape, key_of(plan["name"], step["name"]), look.dim(twig))


def _sub_step_row(view: View, shape: Shape, key: Key, twig: str) -> _Row:
    look, plan = view.look, shape.sub_steps[key]
    phase, name = split_key(key)
    sub_step = view.state["phases"][phase]["sub_steps"][name]
    waits_for = _edges(view, shape, key) if sub_step["status"] == "pending" else ""
    status: str = sub_step["status"]
    if status == "failed" and plan["optional"]:
        status = "tolerated"
    elif status == "pending" and waits_for:
        status = "waiting"
    elif status == "in_progress" and view.stalled:
        status = "interrupted"
    return _Row(
        f"{twig}{look.glyph(status)}   {one_line(name)}",
        look.word(status),
        _sub_step_time(view, sub_step),
        " · ".join(part for part in (waits_for or _detail(view, key, sub_step, plan), _undoing(sub_step)) if part),
    )


def _phase_time(view: View, phase: PhaseState) -> str:
    return since(phase["started_at"], phase["completed_at"] or _end(view)) if phase["started_at"] else ""


def _sub_step_time(view: View, sub_step: SubStepState) -> str:
    if sub_step["status"] in ("skipped", "pending") or sub_step["started_at"] is None:
        return ""
    if sub_step["status"] in ("completed", "failed") and sub_step["seconds"] is not None:
        return duration(sub_step["seconds"])
    return since(sub_step["started_at"], sub_step["completed_at"] or _end(view))


def _edges(view: View, shape: Shape, key: Key) -> str:
    unmet = unmet_needs(view.state, shape, key)
    edges = unmet or open_edges(view.state, shape, key)
    phase = split_key(key)[0]
    named = [one_line(split_key(edge)[1] if split_key(edge)[0] == phase else edge) for edge in edges]
    return f"{'needs' if unmet else 'after'} {', '.join(named)}" if named else ""


# --- what there is to say about a sub-step ---------------------------------------------------------------------------


def _detail(view: View, key: Key, sub_step: SubStepState, plan: SubStepPlan) -> str:
    match sub_step["status"]:
        case "completed":
            parts = [
                *_items(view, sub_step),
                _attempts(sub_step),
                one_line(sub_step["reason"] or ""),
                _refused(view, key),
            ]
        case "failed":
            tolerated = "optional: the job goes on" if plan["optional"] else ""
            parts = [*_items(view, sub_step), _attempts(sub_step), tolerated, error_line(sub_step["error"])]
        case "skipped":
            parts = [one_line(sub_step["reason"] or "")]
        case "retrying":
            due = relative(sub_step["retry_at"], view.now) if sub_step["retry_at"] else ""
            due = "due" if due.endswith("ago") else due
            parts = [f"{_budget(sub_step, plan)} {due}".rstrip() + f": {error_line(sub_step['error'])}"]
        case "interrupted":
            parts = [one_line(sub_step["reason"] or ""), *_position(view, sub_step)]
        case "in_progress":
            attempt = _budget(sub_step, plan) if plan["retry"]["attempts"] > 1 and sub_step["failures"] else ""
            parts = [*_items(view, sub_step), attempt, *_position(view, sub_step)]
        case "waiting":
            parts = [_wait(view, sub_step)]
        case _:
            parts = []
    return " · ".join(part for part in parts if part)


def _budget(sub_step: SubStepState, plan: SubStepPlan) -> str:
    """Which attempt of those allowed is under way or next."""
    return f"attempt {sub_step['failures'] + 1}/{plan['retry']['attempts']}"


def _attempts(sub_step: SubStepState) -> str:
    return f"attempt {sub_step['attempts']}" if sub_step["attempts"] > 1 else ""


def _undoing(sub_step: SubStepState) -> str:
    """How far undoing it has come."""
    compensation = sub_step["compensation"]
    if compensation is None:
        return ""
    if compensation["status"] == "completed":
        return "undone"
    error = error_line(compensation["error"])
    status = compensation["status"].replace("_", " ")
    return f"undoing: {status}, attempt {compensation['attempts']}" + (f": {error}" if error else "")


def _items(view: View, sub_step: SubStepState) -> Iterator[str]:
    """A fan-out in numbers."""
    items = sub_step["items"]
    if items is None:
        return
    counts = counts_of(items)
    settled = counts.completed + counts.failed + counts.skipped
    running = 0 if view.stalled else counts.in_progress
    yield f"{view.look.bar(settled, counts.total, 5)} {settled}/{counts.total} items".lstrip()
    for count, word in (
        (running, "running"),
        (counts.in_progress - running, "interrupted"),
        (counts.waiting, "to run again"),
        (counts.failed, "failed"),
        (counts.skipped, "skipped"),
    ):
        if count:
            yield f"{count} {word}"


def _refused(view: View, key: Key) -> str:
    refused = {
        field: True for place, fields in view.state["refused"].items() if key_of_place(place) == key for field in fields
    }
    return f"context refused: {one_line(', '.join(refused))}" if refused else ""


def _position(view: View, sub_step: SubStepState) -> Iterator[str]:
    """How far it is, and where it would go on."""
    progress = sub_step["progress"]
    if progress:
        done, total = progress["done"], progress.get("total")
        bar = f"{view.look.bar(done, total, 5)} {done:g}/{total:g}" if total else f"{done:g}"
        yield f"{bar} {one_line(progress.get('note', ''))}".rstrip()
    if sub_step["cursor"] is not None:
        yield f"cursor {short(sub_step['cursor'], 40)}"


def _wait(view: View, sub_step: SubStepState) -> str:
    wait = sub_step["wait"]
    if wait is None:
        return ""
    until = view.look.when(wait["until"], view.now) if wait["until"] else ""
    return one_line(f"{wait['kind']} {wait['signal'] or ''} {until}")
