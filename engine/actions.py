"""What a person does to a job by hand, as the events that it is: a pure function of the state for each action.

Each raises ActionRefused where the state does not allow it. An owner goes on from these events as from its own: it
decides again. A job without an owner that waits for a person stays where it is until it is resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

from steplog.engine.allowed import (
    backing_off,
    is_edited_since,
    is_held,
    require,
    require_of,
    stops_the_job,
)
from steplog.eventstore import events as ev
from steplog.eventstore.codec import encode
from steplog.eventstore.events import EventData
from steplog.projections.context_rules import UNSET
from steplog.projections.fan_out import is_expanded, items_of
from steplog.projections.plan import Key, Shape, key_of_place, split_key
from steplog.projections.readiness import followers, sub_step_of
from steplog.projections.state import ENDED, STOPPED, State
from steplog.projections.undoing import is_undone_when

NAMES_MAX = 1000
"""How many sub-steps one event names."""
CONTEXT_BYTES_MAX = 1 << 19
"""How much of the context one event that names sub-steps sets, if it is more than one field."""

Written = Mapping[tuple[str, str], Any]
"""By field and writer, the value that each of its writers last gave it; UNSET where it took it away."""

T = TypeVar("T")


class Who(NamedTuple):
    """Who does it, and why."""

    by: str
    reason: str | None = None

    @property
    def said(self) -> dict[str, Any]:
        return self._asdict()


# --- the job ---------------------------------------------------------------------------------------------------------


def pause(state: State, who: Who) -> list[EventData]:
    """Stop once nothing is in progress; at once where nobody runs the job."""
    require(state, "pause")
    asked = ev.JobPauseRequested(**who.said)
    return [asked] if state["worker_id"] else [asked, ev.JobPaused(**who.said)]


def cancel(state: State, who: Who) -> list[EventData]:
    """End before the end; at once where nobody runs the job and nothing is to be undone by a worker first."""
    require(state, "cancel")
    asked = ev.JobCancelRequested(**who.said)
    if state["worker_id"]:
        return [asked]
    if is_undone_when(state, "cancelled"):
        return [*([ev.JobResumed(**who.said)] if state["status"] in STOPPED else []), asked]
    return [asked, ev.JobCancelled(**who.said)]


def resume(state: State, who: Who, *, accept: bool = False, same_key: bool = False) -> list[EventData]:
    """Go on with a job that waits for a person; what stopped it gets another chance.

    A sub-step that runs again after an edit of the input or the context begins a new generation: under its old
    idempotency key others would take the new request for the old one. `accept` leaves the context as it is where the
    job is parked because of it.
    """
    if not (accept and state["refused"] and state["status"] in STOPPED):
        require(state, "resume")
    if state["undoing"]:
        return [ev.JobResumed(**who.said)]
    shape = Shape.of(state["plan"])
    again = [key for key in shape.sub_steps if _comes_again(state, shape, key)]
    edited = [key for key in again if _is_edited(state, key)]
    return [ev.JobResumed(**who.said), *_new_lives(state, edited, who, same_key)]


def retry_all(state: State, who: Who, at: str, *, same_key: bool = False) -> list[EventData]:
    """Give what stopped the job another chance, or what backs off its next attempt now."""
    require(state, "retry")
    if state["status"] in ("failed", "parked"):
        return resume(state, who, same_key=same_key)
    waiting = backing_off(state)
    edited = [key for key in waiting if _is_edited(state, key)]
    due = [_due(state, key, who, at) for key in waiting if key not in edited]
    return [*due, *_new_lives(state, edited, who, same_key)]


def set_context(state: State, who: Who, values: dict[str, Any], unset: Sequence[str] = ()) -> list[EventData]:
    """Change fields of the context; where the job is parked because of one, that is the decision."""
    require(state, "set")
    return [ev.ContextChanged(set=values, unset=list(unset), **who.said)]


def edit_input(state: State, who: Who, input: Any) -> list[EventData]:
    """Give a job that is stopped another input."""
    require(state, "edit-input")
    return [ev.InputChanged(input=input, **who.said)]


def signal(state: State, who: Who, name: str, payload: Any, signal_id: str) -> list[EventData]:
    """Send the job a signal; it is kept until something waits for it."""
    require(state, "signal")
    return [ev.SignalReceived(name=name, payload=payload, signal_id=signal_id, by=who.by)]


def erase(state: State, by: str, reason: str) -> list[EventData]:
    """Say that the key to the job's secrets is destroyed; nothing where it was before."""
    if state["erased"]:
        return []
    require(state, "erase")
    return [ev.SecretsErased(by=by, reason=reason)]


# --- a sub-step ------------------------------------------------------------------------------------------------------


def retry(state: State, key: Key, who: Who, at: str, *, same_key: bool = False) -> list[EventData]:
    """Run the sub-step again, with a new budget of attempts, and nothing else.

    Generation and idempotency key stay, unless input or context were edited since its latest attempt began.
    """
    shape = Shape.of(state["plan"])
    require_of(state, shape, "retry", key)
    sub_step = sub_step_of(state, key)
    stopped = state["status"] in ("failed", "parked")
    resumed: list[EventData] = [ev.JobResumed(**who.said)] if stopped else []
    if _is_edited(state, key):
        return [*resumed, *_new_lives(state, [key], who, same_key)]
    if state["status"] == "failed" and stops_the_job(state, shape, key):
        return resumed
    asked = shape.sub_steps[key]["when"] and not sub_step["when"]
    if asked or ("map" in shape.sub_steps[key] and not is_expanded(sub_step)):  # it failed when asked, and never began
        return [*resumed, *_new_lives(state, [key], who, same_key)]
    return [*resumed, _due(state, key, who, at)]


def skip(state: State, key: Key, who: Who) -> list[EventData]:
    """Do without the sub-step."""
    sub_step = _settled_by_hand(state, "skip", key)
    attempt = sub_step.pop("attempt") if sub_step_of(state, key)["status"] == "in_progress" else None
    reason = who.reason or f"skipped by {who.by}"
    return [ev.SubStepSkipped(**{**sub_step, "attempt": attempt}, cause="operator", reason=reason, by=who.by)]


def complete(state: State, key: Key, who: Who, result: Any) -> list[EventData]:
    """Take the sub-step for done, with that result."""
    sub_step = _settled_by_hand(state, "complete", key)
    return [ev.SubStepCompleted(**sub_step, result=result, seconds=0.0, **who.said)]


def fail(state: State, key: Key, who: Who) -> list[EventData]:
    """Take the sub-step for failed."""
    sub_step = _settled_by_hand(state, "fail", key)
    message = who.reason or f"failed by {who.by}"
    error = {"type": "FailedByHand", "message": message, "traceback": "", "retryable": False}
    return [ev.SubStepFailed(**sub_step, error=error, seconds=0.0, by=who.by)]


def reset(state: State, key: Key, who: Who, written: Written, *, same_key: bool = False, group: str) -> list[EventData]:
    """Put the sub-step back to pending, with all that went on from it and what that wrote to the context."""
    shape = Shape.of(state["plan"])
    require_of(state, shape, "reset", key)
    keys = [key, *followers(state, shape, key)]
    opened: list[EventData] = [ev.JobReopened(**who.said)] if state["status"] in ("failed", *ENDED) else []
    return [*opened, *_resets(keys, _restored(state, set(keys), written), who, same_key, group)]


# --- parts of these --------------------------------------------------------------------------------------------------


def _comes_again(state: State, shape: Shape, key: Key) -> bool:
    """Whether resuming gives the sub-step another chance."""
    if not stops_the_job(state, shape, key):
        return False
    return is_held(shape, key, sub_step_of(state, key)) or state["phases"][split_key(key)[0]]["status"] == "failed"


def _is_edited(state: State, key: Key) -> bool:
    """Whether a person changed input or context since it began; of a fan-out, since an item began that runs again."""
    sub_step = sub_step_of(state, key)
    return bool(_edited_items(state, key)) if is_expanded(sub_step) else is_edited_since(state, sub_step)


def _edited_items(state: State, key: Key) -> list[str]:
    return [
        item.key
        for item in items_of(sub_step_of(state, key))
        if item.state["status"] not in ("completed", "skipped", "in_progress") and is_edited_since(state, item.state)
    ]


def _new_lives(state: State, keys: Sequence[Key], who: Who, same_key: bool) -> list[EventData]:
    """Begin new generations: of a fan-out, of the items that run again; what they have done stays done."""
    expanded = [key for key in keys if is_expanded(sub_step_of(state, key))]
    whole = _chunks([key for key in keys if key not in expanded], NAMES_MAX)
    return [
        *(ev.SubStepReset(sub_steps=chunk, same_key=same_key, **who.said) for chunk in whole),
        *(
            ev.SubStepReset(sub_steps=[key], items=chunk, same_key=same_key, **who.said)
            for key in expanded
            for chunk in _chunks(_edited_items(state, key), NAMES_MAX)
        ),
    ]


def _due(state: State, key: Key, who: Who, at: str) -> EventData:
    of = {**_names(state, key), "attempt": sub_step_of(state, key)["attempts"] + 1}
    return ev.SubStepRetryScheduled(**of, retry_at=at, **who.said)


def _settled_by_hand(state: State, action: str, key: Key) -> dict[str, Any]:
    """What an event says of the sub-step's latest attempt, or of the first one where there was none."""
    require_of(state, Shape.of(state["plan"]), action, key)
    return {**_names(state, key), "attempt": max(1, sub_step_of(state, key)["attempts"])}


def _names(state: State, key: Key) -> dict[str, Any]:
    phase, name = split_key(key)
    return {"phase": phase, "sub_step": name, "generation": sub_step_of(state, key)["generation"]}


def _restored(state: State, reset: set[Key], written: Written) -> dict[str, Any]:
    """The fields that go back, with the value last written by what is not reset, UNSET if there is none."""
    restored = {}
    for field, writers in state["writers"].items():
        if writers and key_of_place(max(writers, key=writers.__getitem__)) in reset:
            left = [writer for writer in writers if key_of_place(writer) not in reset]
            restored[field] = written[field, max(left, key=writers.__getitem__)] if left else UNSET
    return restored


def _resets(keys: Sequence[Key], restored: dict[str, Any], who: Who, same_key: bool, group: str) -> list[EventData]:
    """One event, or a series of chunks where it would name or set too much."""
    parts = list(zip_longest(_chunks(keys, NAMES_MAX), _context_chunks(restored), fillvalue=()))
    return [
        ev.SubStepReset(
            sub_steps=list(names),
            set={field: value for field, value in fields if value is not UNSET},
            unset=[field for field, value in fields if value is UNSET],
            same_key=same_key,
            group=group if len(parts) > 1 else None,
            **who.said,
        )
        for names, fields in parts
    ]


def _chunks(items: Sequence[T], length: int) -> list[list[T]]:
    return [list(items[start : start + length]) for start in range(0, len(items), length)]


def _context_chunks(restored: dict[str, Any]) -> Iterable[list[tuple[str, Any]]]:
    """Fields together as long as they are small."""
    chunk: list[tuple[str, Any]] = []
    left = CONTEXT_BYTES_MAX
    for field, value in restored.items():
        needed = len(field) if value is UNSET else len(field) + len(encode(value))
        if chunk and needed > left:
            yield chunk
            chunk, left = [], CONTEXT_BYTES_MAX
        chunk.append((field, value))
        left -= needed
    if chunk:
        yield chunk
