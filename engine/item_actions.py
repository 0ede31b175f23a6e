"""What a person does to one item of a fan-out by hand, as the events that it is. Pure; see `actions` for sub-steps."""

from __future__ import annotations

from typing import Any, NoReturn

from steplog.engine.actions import Who
from steplog.engine.allowed import Obstacle, against_item, allowed_item_actions
from steplog.engine.errors import ActionRefused
from steplog.eventstore import events as ev
from steplog.eventstore.events import EventData
from steplog.projections.fan_out import item_of
from steplog.projections.plan import Key, Shape, place_of, shown_place, split_key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State


def skip_item(state: State, key: Key, item: str, who: Who) -> list[EventData]:
    """Do without the item: the group's result has none of it."""
    of = _settled_by_hand(state, "skip", key, item)
    reason = who.reason or f"skipped by {who.by}"
    attempt = of.pop("attempt") if item_of(sub_step_of(state, key), item)["status"] == "in_progress" else None
    return [ev.SubStepSkipped(**{**of, "attempt": attempt}, cause="operator", reason=reason, by=who.by)]


def complete_item(state: State, key: Key, item: str, who: Who, result: Any) -> list[EventData]:
    """Take the item for done, with that result."""
    of = _settled_by_hand(state, "complete", key, item)
    return [ev.SubStepCompleted(**of, result=result, seconds=0.0, **who.said)]


def fail_item(state: State, key: Key, item: str, who: Who) -> list[EventData]:
    """Take the item for failed."""
    of = _settled_by_hand(state, "fail", key, item)
    message = who.reason or f"failed by {who.by}"
    error = {"type": "FailedByHand", "message": message, "traceback": "", "retryable": False}
    return [ev.SubStepFailed(**of, error=error, seconds=0.0, by=who.by)]


def retry_item(state: State, key: Key, item: str, who: Who, at: str) -> list[EventData]:
    """Run the item again, with a new budget of attempts, under its idempotency key."""
    _require(state, "retry", key, item)
    attempt = item_of(sub_step_of(state, key), item)["attempts"] + 1
    return [ev.SubStepRetryScheduled(**_names(state, key, item), attempt=attempt, retry_at=at, **who.said)]


def refuse_reset(state: State, key: Key, item: str) -> NoReturn:
    """Raise ActionRefused: items are put back together, since their list is made anew."""
    _refuse(state, "reset", key, item, Obstacle(f"a reset is of all its items, which are listed anew: reset {key}"))


def _settled_by_hand(state: State, action: str, key: Key, item: str) -> dict[str, Any]:
    _require(state, action, key, item)
    attempts = item_of(sub_step_of(state, key), item)["attempts"]
    return {**_names(state, key, item), "attempt": max(1, attempts)}


def _names(state: State, key: Key, item: str) -> dict[str, Any]:
    phase, name = split_key(key)
    generation = item_of(sub_step_of(state, key), item)["generation"]
    return {"phase": phase, "sub_step": name, "item": item, "generation": generation}


def _require(state: State, action: str, key: Key, item: str) -> None:
    """Raise ActionRefused unless the action is allowed on that item."""
    obstacle = against_item(state, Shape.of(state["plan"]), action, key, item)
    if obstacle is not None:
        _refuse(state, action, key, item, obstacle)


def _refuse(state: State, action: str, key: Key, item: str, obstacle: Obstacle) -> NoReturn:
    raise ActionRefused(
        state["job_id"],
        item_of(sub_step_of(state, key), item)["status"],
        action,
        allowed_item_actions(state, key, item),
        obstacle.why,
        sub_step=shown_place(place_of(*split_key(key), item)),
        blocked_by=obstacle.keys,
    )
