"""The resume point: what would run next, why, and with which context. A pure function of the state."""

from __future__ import annotations

from collections import Counter
from typing import Any

from steplog.projections.fan_out import counts_of, next_item_due
from steplog.projections.plan import Key, Shape
from steplog.projections.readiness import blocking_failure, open_edges, sub_step_of
from steplog.projections.state import ENDED, STOPPED, Items, State, SubStepState, current_phase
from steplog.projections.undoing import to_undo

_BECAUSE = {
    "pending": "its turn",
    "retrying": "retry is due",
    "interrupted": "interrupted: its effect may have happened",
    "in_progress": "in progress: runs again if its owner is dead",
}


def resume_point(state: State) -> dict[str, Any]:
    """`{version, status, phase, context, run, waiting, done, skipped, failed}`; sub-steps by key, in the plan's order.

    `run` holds `{sub_step, attempt, because, not_before}`, for a fan-out also `items`, which are in numbers; `waiting`
    holds `{sub_step, for, until}`.
    """
    shape = Shape.of(state["plan"])
    phase = None if state["status"] in ENDED else _phase_to_go_on_with(state, shape)
    run: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    if state["undoing"]:
        run += [_undo(state, key) for key in to_undo(state, shape)]
    else:
        for key in shape.of_phase[phase] if phase else ():
            _next(state, shape, key, run, waiting)
    return {
        "job_id": state["job_id"],
        "version": state["version"],
        "status": state["status"],
        "phase": phase,
        "context": state["context"],
        "run": run,
        "waiting": waiting,
        "done": _with_status(state, shape, "completed"),
        "skipped": _with_status(state, shape, "skipped"),
        "failed": _with_status(state, shape, "failed"),
    }


def _phase_to_go_on_with(state: State, shape: Shape) -> str | None:
    """The current one, or the next behind it where nothing is left of that: so it is in a fork until that is run."""
    current = current_phase(state)
    if state["undoing"]:
        return current
    phases = list(shape.of_phase)
    for phase in phases[phases.index(current) :] if current is not None else ():
        if state["phases"][phase]["unsettled"] or blocking_failure(state, shape, phase):
            return phase
    return current


def _next(state: State, shape: Shape, key: Key, run: list[dict[str, Any]], waiting: list[dict[str, Any]]) -> None:
    sub_step = sub_step_of(state, key)
    because = _BECAUSE.get(sub_step["status"])
    if because is None:
        if sub_step["wait"]:
            waiting.append(_waiting(key, _wait(sub_step), sub_step["wait"]["until"]))
        return
    edges = open_edges(state, shape, key)
    if state["status"] in STOPPED:
        waiting.append(_waiting(key, f"a person: the job is {state['status']}"))
    elif edges and not sub_step["attempts"]:
        waiting.append(_waiting(key, ", ".join(edges)))
    elif sub_step["items"] is not None:
        run.append(_of_items(key, sub_step["items"]))
    else:
        run.append(
            {
                "sub_step": key,
                "attempt": sub_step["attempts"] + 1,
                "because": because,
                "not_before": sub_step["retry_at"],
            }
        )


def _undo(state: State, key: Key) -> dict[str, Any]:
    """A compensation to come: they stand in the order in which they run."""
    compensation = sub_step_of(state, key)["compensation"]
    status = compensation["status"].replace("_", " ") if compensation else "its turn comes"
    return {
        "sub_step": key,
        "attempt": (compensation["attempts"] if compensation else 0) + 1,
        "because": f"to be undone: {status}",
        "not_before": compensation["retry_at"] if compensation else None,
    }


def _of_items(key: Key, items: Items) -> dict[str, Any]:
    """What is left of a fan-out."""
    counts = counts_of(items)
    left = counts.in_progress + counts.waiting + counts.pending
    statuses = Counter(items["active"][item]["status"] for item in (*items["in_progress"], *items["suspended"]))
    said = [f"{count} {status.replace('_', ' ')}" for status, count in sorted(statuses.items())]
    because = f"{left} of {counts.total} items are left" if items["complete"] else "its items are being listed"
    due = min(next_item_due(items), default=None)
    return {
        "sub_step": key,
        "attempt": 1,
        "because": f"{because} ({', '.join(said)})" if said else because,
        "not_before": None if counts.pending or counts.in_progress else due,
        "items": counts._asdict(),
    }


def _wait(sub_step: SubStepState) -> str:
    wait = sub_step["wait"]
    assert wait is not None
    return f"{wait['kind']} {wait['signal'] or ''}".strip()


def _waiting(key: Key, what: str, until: str | None = None) -> dict[str, Any]:
    return {"sub_step": key, "for": what, "until": until}


def _with_status(state: State, shape: Shape, status: str) -> list[Key]:
    return [key for key in shape.sub_steps if sub_step_of(state, key)["status"] == status]
