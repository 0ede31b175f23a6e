"""What of a job is to be undone, and how events of compensations change the state. Pure."""

from __future__ import annotations

from typing import Any

from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.projections.plan import Key, Shape
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import CompensationState, State, SubStepState, Undoing


def to_undo(state: State, shape: Shape) -> list[Key]:
    """Sub-steps with a compensation that have completed and are not undone, the last to complete first."""
    keys = [
        key for key, step in shape.sub_steps.items() if "compensate" in step and _is_to_undo(sub_step_of(state, key))
    ]
    return sorted(keys, key=lambda key: sub_step_of(state, key)["completed_version"] or 0, reverse=True)


def _is_to_undo(sub_step: SubStepState) -> bool:
    compensation = sub_step["compensation"]
    return sub_step["status"] == "completed" and (compensation is None or compensation["status"] != "completed")


def is_undone_when(state: State, because: str) -> bool:
    """Whether the job is undone before it ends so: its workflow asks for that, and it has done something."""
    return because in state["plan"].get("compensate_on", ()) and bool(to_undo(state, Shape.of(state["plan"])))


def next_undo_due(state: State, shape: Shape) -> str | None:
    """When the next compensation may run again, if it waits for that."""
    keys = to_undo(state, shape)
    compensation = sub_step_of(state, keys[0])["compensation"] if keys else None
    return compensation["retry_at"] if compensation else None


def because_of(state: State) -> Undoing:
    """Why the job is undone: somebody cancelled it, or it failed."""
    by = state["requested_by"] or {}
    if state["requested"] == "cancel":
        return Undoing(because="cancelled", by=by.get("by"), reason=by.get("reason"))
    return Undoing(because="failed", by=None, reason=None)


# --- rules -----------------------------------------------------------------------------------------------------------


def _of(state: State, data: dict[str, Any]) -> SubStepState:
    return state["phases"][data["phase"]]["sub_steps"][data["sub_step"]]


def _begun(sub_step: SubStepState) -> CompensationState:
    """A copy of it. Raises KeyError where there is none."""
    if sub_step["compensation"] is None:
        raise KeyError("a compensation that has not begun")
    return sub_step["compensation"].copy()


def started(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _of(state, data)
    before = sub_step["compensation"]
    if (before["attempts"] if before else 0) + 1 != data["attempt"] or sub_step["status"] != "completed":
        raise DamagedLog(event.job_id, event.version, f"compensation {data['attempt']} is not the next one")
    sub_step["compensation"] = CompensationState(
        status="in_progress",
        attempts=data["attempt"],
        failures=before["failures"] if before else 0,
        interruptions=before["interruptions"] if before else 0,
        error=before["error"] if before else None,
        retry_at=None,
        idempotency_key=data["idempotency_key"],
        seconds=None,
    )
    state["undoing"] = state["undoing"] or because_of(state)
    state["status"] = "compensating"
    state["requested"] = state["requested_by"] = None


def completed(state: State, event: Event, data: dict[str, Any]) -> None:
    compensation = _begun(sub_step := _of(state, data))
    sub_step["compensation"] = {**compensation, "status": "completed", "error": None, "seconds": data["seconds"]}


def failed(state: State, event: Event, data: dict[str, Any]) -> None:
    compensation = _begun(sub_step := _of(state, data))
    compensation["status"] = "retrying" if data.get("retry_at") else "failed"
    compensation["failures"] += 1
    compensation["error"] = data["error"]
    compensation["seconds"] = data["seconds"]
    compensation["retry_at"] = data.get("retry_at")
    sub_step["compensation"] = compensation
    error = f"compensation of {data['sub_step']}: {data['error'].get('type')}: {data['error'].get('message')}"
    state["last_error"] = error[:500]


def interrupted(state: State, event: Event, data: dict[str, Any]) -> None:
    compensation = _begun(sub_step := _of(state, data))
    compensation["status"] = "interrupted"
    compensation["interruptions"] += data["cause"] == "owner died"
    sub_step["compensation"] = compensation


def resumed(state: State) -> None:
    """A person lets what is not undone be tried again, with a new budget."""
    for phase in state["phases"].values():
        for sub_step in phase["sub_steps"].values():
            compensation = sub_step["compensation"]
            if compensation is not None and compensation["status"] != "completed":
                again = compensation.copy()
                again["status"], again["retry_at"] = "retrying", None
                again["failures"] = again["interruptions"] = 0
                sub_step["compensation"] = again
