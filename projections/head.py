"""`head_of`: the columns that lists filter on, from the state alone."""

from __future__ import annotations

from steplog.eventstore.store import HeadColumns
from steplog.projections.state import State, current_phase, is_whole


def head_of(state: State) -> HeadColumns:
    """The head's columns of a state; `verify` compares them with what is stored."""
    error = state["error"]
    return HeadColumns(
        workflow=state["workflow"],
        status=state["status"],
        created_at=state["created_at"],
        updated_at=state["recorded_at"],
        mode=state["mode"],
        phase=current_phase(state),
        last_error=state["last_error"],
        failed_sub_step=error["sub_step"] if error else None,
        wake_at=_wake_at(state),
        ended_at=state["ended_at"],
        done=state["done"],
        total=state["total"],
        key=state["key"],
        tags=state["tags"],
        priority=state["priority"],
        batch_id=state["batch_id"],
    )


def _wake_at(state: State) -> str | None:
    """Constant while a job runs, so that its head's updates touch no index; one that runs nowhere is due at once."""
    if state["mode"] == "recorded" or not is_whole(state):
        return None
    if state["status"] in ("queued", "running", "compensating"):
        return state["wake_at"] or state["created_at"]
    return state["wake_at"] if state["status"] == "waiting" else None
