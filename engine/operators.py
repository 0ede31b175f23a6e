"""What people do to jobs by hand: load, fold, and append what `actions` says, under the lock of the job's head.

Every call says who does it. `reason` is why; `request_id` makes the call idempotent: the same one again appends
nothing; `dry_run` appends nothing and says what would be; with `expected`, nothing is done to a job that has moved on
from that version. Raises ActionRefused with what is allowed instead, VersionChanged, and JobNotFound. The workflow's
definition, where it is given, checks values by its types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack

from steplog.engine import actions, item_actions
from steplog.engine.actions import Who
from steplog.engine.allowed import require, require_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import ValueRefused, VersionChanged
from steplog.engine.given import given_context, given_input, given_name, given_result
from steplog.engine.history import Loaded, load
from steplog.engine.lookup import find_place
from steplog.engine.store_clock import store_clock
from steplog.engine.values import plain
from steplog.engine.vault import vault_of
from steplog.eventstore.chain import seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.codec import check_name
from steplog.eventstore.errors import OutcomeUnknown
from steplog.eventstore.events import Event, EventData
from steplog.eventstore.store import Head, Proposal, Store
from steplog.projections.context_rules import UNSET, writes_of
from steplog.projections.evolve import Evolution, fold
from steplog.projections.head import head_of
from steplog.projections.plan import Shape
from steplog.projections.state import State

SENDS_MAX = 3
"""How often a write is sent whose outcome is unknown."""

T = TypeVar("T")


class How(TypedDict, total=False):
    """What every call takes beside who does it."""

    reason: str | None
    request_id: str | None
    dry_run: bool
    expected: int | None
    clock: Clock


@dataclass(frozen=True, slots=True)
class Appended:
    """What a call came to: the events it appended, and the job's state after them."""

    state: State
    events: Sequence[EventData]
    repeated: bool = False
    """Whether the same request had been made before: nothing was appended now."""


Action = Callable[[State, str, Sequence[Event]], list[EventData]]
"""From the state under the lock, the instant, and the events that came since the job was loaded, what to append."""

# --- the job ---------------------------------------------------------------------------------------------------------


def pause(store: Store, job_id: str, *, by: str, **how: Unpack[How]) -> Appended:
    """Stop the job once nothing is in progress; at once where nobody runs it."""
    who = _who(by, how)
    return _act("pause", store, load(store, job_id), lambda state, at, tail: actions.pause(state, who), how)


def resume(store: Store, job_id: str, *, by: str, accept: bool = False, **how: Unpack[How]) -> Appended:
    """Put a job that waits for a person back in the queue.

    `accept` takes the context as it is where the job is parked because sub-steps disagreed about it.
    """
    who = _who(by, how)
    return _act(
        "resume", store, load(store, job_id), lambda state, at, tail: actions.resume(state, who, accept=accept), how
    )


def cancel(store: Store, job_id: str, *, by: str, **how: Unpack[How]) -> Appended:
    """End the job before its end; at once where nobody runs it."""
    who = _who(by, how)
    return _act("cancel", store, load(store, job_id), lambda state, at, tail: actions.cancel(state, who), how)


def set_context(
    store: Store,
    job_id: str,
    values: Mapping[str, Any],
    *,
    unset: Sequence[str] = (),
    by: str,
    definition: AnyDefinition | None = None,
    **how: Unpack[How],
) -> Appended:
    """Change fields of the job's context. Raises ValueRefused."""
    who, vault = _who(by, how), vault_of(store, job_id, definition)

    def action(state: State, at: str, tail: Sequence[Event]) -> list[EventData]:
        require(state, "set")
        given = given_context(definition, state, dict(values), unset, vault)
        return actions.set_context(state, who, given, unset)

    return _act("set_context", store, load(store, job_id), action, how)


def edit_input(
    store: Store, job_id: str, input: Any, *, by: str, definition: AnyDefinition | None = None, **how: Unpack[How]
) -> Appended:
    """Give a job that is stopped another input. Raises InputRefused."""
    who, vault = _who(by, how), vault_of(store, job_id, definition)

    def action(state: State, at: str, tail: Sequence[Event]) -> list[EventData]:
        require(state, "edit-input")
        return actions.edit_input(state, who, given_input(definition, input, vault, state))

    return _act("edit_input", store, load(store, job_id), action, how)


def signal(store: Store, job_id: str, name: str, payload: Any = None, *, by: str, **how: Unpack[How]) -> Appended:
    """Send the job a signal. Its request id is the signal's."""
    who = _who(by, how)
    signal_id = how.get("request_id") or _clock(store, how).new_id()
    how["request_id"] = signal_id
    check_name(name, "signal")
    sent = plain(payload, "payload")
    return _act(
        "signal",
        store,
        load(store, job_id),
        lambda state, at, tail: actions.signal(state, who, name, sent, signal_id),
        how,
    )


def erase(store: Store, job_id: str, *, by: str, reason: str, clock: Clock | None = None) -> Appended:
    """Destroy the key to the job's secrets, for good: nobody can read them any more, in its forks and exports neither.

    Of a job that is stopped or has ended. The event that says so and the end of the key are one transaction.
    """
    if not reason.strip():
        raise ValueRefused("reason", ["say why: it is all that will be left of it"])
    given_name(by)
    how: How = {} if clock is None else {"clock": clock}
    return _act("erase", store, load(store, job_id), lambda state, at, tail: actions.erase(state, by, reason), how)


# --- a sub-step, by its name where that is unique, else by `phase/name`; an item of it by `name[item]` ---------------


def retry(
    store: Store, job_id: str, sub_step: str | None = None, *, by: str, same_key: bool = False, **how: Unpack[How]
) -> Appended:
    """Let a sub-step run again, or without one whatever stopped the job or backs off.

    After an edit since its latest attempt it begins a new generation with a new idempotency key; `same_key` keeps
    the key.
    """
    who = _who(by, how)

    def action(state: State, at: str, tail: Sequence[Event]) -> list[EventData]:
        if sub_step is None:
            return actions.retry_all(state, who, at, same_key=same_key)
        key, item = find_place(state, sub_step)
        if item is not None:
            return item_actions.retry_item(state, key, item, who, at)
        return actions.retry(state, key, who, at, same_key=same_key)

    return _act("retry", store, load(store, job_id), action, how)


def skip(store: Store, job_id: str, sub_step: str, *, by: str, **how: Unpack[How]) -> Appended:
    """Do without a sub-step whose edges are settled."""
    who = _who(by, how)

    def action(state: State, at: str, tail: Sequence[Event]) -> list[EventData]:
        key, item = find_place(state, sub_step)
        return actions.skip(state, key, who) if item is None else item_actions.skip_item(state, key, item, who)

    return _act("skip", store, load(store, job_id), action, how)


def complete(
    store: Store,
    job_id: str,
    sub_step: str,
    result: Any = None,
    *,
    by: str,
    definition: AnyDefinition | None = None,
    **how: Unpack[How],
) -> Appended:
    """Take a sub-step whose edges are settled for done, with that result. Raises ValueRefused."""
    who, vault = _who(by, how), vault_of(store, job_id, definition)

    def action(state: State, at: str, tail: Sequence[Event]) -> list[EventData]:
        key, item = find_place(state, sub_step)
        if item is not None:
            given = given_result(definition, key, result, vault, state, of_item=True)
            return item_actions.complete_item(state, key, item, who, given)
        require_of(state, Shape.of(state["plan"]), "complete", key)
        return actions.complete(state, key, who, given_result(definition, key, result, vault, state))

    return _act("complete", store, load(store, job_id), action, how)


def fail(store: Store, job_id: str, sub_step: str, *, by: str, **how: Unpack[How]) -> Appended:
    """Take an open sub-step whose edges are settled for failed."""
    who = _who(by, how)

    def action(state: State, at: str, tail: Sequence[Event]) -> list[EventData]:
        key, item = find_place(state, sub_step)
        return actions.fail(state, key, who) if item is None else item_actions.fail_item(state, key, item, who)

    return _act("fail", store, load(store, job_id), action, how)


def reset(store: Store, job_id: str, sub_step: str, *, by: str, same_key: bool = False, **how: Unpack[How]) -> Appended:
    """Put a sub-step back to pending with all that went on from it, and the context as it was without them."""
    who = _who(by, how)
    loaded = load(store, job_id)
    written = _written(store, loaded)
    group = _clock(store, how).new_id()

    def action(state: State, at: str, tail: Sequence[Event]) -> list[EventData]:
        since = {(field, writer): value for event in tail for field, writer, value in writes_of(event)}
        key, item = find_place(state, sub_step)
        if item is not None:
            item_actions.refuse_reset(state, key, item)
        return actions.reset(state, key, who, written | since, same_key=same_key, group=group)

    return _act("reset", store, loaded, action, how)


def _written(store: Store, loaded: Loaded) -> dict[tuple[str, str], Any]:
    """What each writer of the context last wrote: the latest of a field stands in the state, others in the log."""
    state = loaded.state
    written: dict[tuple[str, str], Any] = {}
    elsewhere: set[int] = set()
    for field, writers in state["writers"].items():
        if writers:
            latest = max(writers, key=writers.__getitem__)
            written[field, latest] = state["context"].get(field, UNSET)
            elsewhere |= {version for writer, version in writers.items() if writer != latest}
    for version in elsewhere:
        for event in store.read(state["job_id"], version - 1, version):
            written |= {
                (field, writer): value
                for field, writer, value in writes_of(event)
                if (field, writer) not in written and state["writers"][field].get(writer) == version
            }
    return written


# --- the append ------------------------------------------------------------------------------------------------------


def _act(what: str, store: Store, loaded: Loaded, action: Action, how: How) -> Appended:
    """Append what the action says of the job as it is under the lock; the same request is one of that action alone."""
    job_id, clock = loaded.state["job_id"], _clock(store, how)
    made: list[Appended] = []

    def foreseen(tail: Sequence[Event]) -> Appended:
        before = fold(tail, loaded.state)
        if (expected := how.get("expected")) is not None and before["version"] != expected:
            raise VersionChanged(job_id, expected, before["version"])
        at = max(clock.now(), before["recorded_at"])
        data = action(before, at, tail)
        evolution = Evolution(before)
        for each in data:
            evolution.foresee(each, at)
        return Appended(evolution.state, data)

    def rule(head: Head, tail: Sequence[Event]) -> Proposal:
        made[:] = [foreseen(tail)]
        state, data = made[0].state, made[0].events
        events = seal(job_id, head.position, data, state["recorded_at"], clock)
        return Proposal(events, head_of(state), erases=state["erased"])

    if how.get("dry_run"):
        return foreseen([])
    request_id = how.get("request_id") or clock.new_id()
    if what != "signal":  # its id is the signal's own
        request_id = f"{what} {request_id}"
    version = until_known(lambda: store.append_locked(job_id, loaded.position, rule, request_id=request_id))
    if made and made[0].state["version"] == version:
        return made[0]
    return Appended(load(store, job_id).state, [], repeated=True)


def until_known(write: Callable[[], T]) -> T:
    """What an idempotent write comes to. Raises OutcomeUnknown where even repeating it does not tell."""
    for _ in range(SENDS_MAX - 1):
        try:
            return write()
        except OutcomeUnknown:
            continue
    return write()


def _who(by: str, how: How) -> Who:
    return Who(given_name(by), how.get("reason") or None)


def _clock(store: Store, how: How) -> Clock:
    return how.get("clock") or store_clock(store)
