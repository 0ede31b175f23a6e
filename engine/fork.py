"""Forking: a new job from another one's past, with an edited context or input.

The fork's log stands on its own: it begins with its parent's hash, then holds a copy of each sub-step that had settled,
with what that wrote to the context. What was in flight, or had stopped the job, is pending again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Unpack

from steplog.engine.allowed import require, stops_the_job
from steplog.engine.chunks import chunks_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.given import given_context, given_input, given_name
from steplog.engine.history import Loaded, load
from steplog.engine.operators import Appended, How, until_known
from steplog.engine.store_clock import store_clock
from steplog.engine.vault import vault_of
from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.codec import check_name, encode
from steplog.eventstore.events import Event, EventData, JobForked, SubStepInherited
from steplog.eventstore.store import Head, NewJob, Proposal, Store
from steplog.projections.context_rules import OPERATOR, UNSET, writes_of
from steplog.projections.evolve import Evolution, evolve, fold
from steplog.projections.fan_out import is_expanded, to_inherit
from steplog.projections.head import head_of
from steplog.projections.plan import Key, Shape, key_of, key_of_place, split_key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import ENDED, SETTLED, State, is_whole

EVENTS_MAX = 1000
"""How many sub-steps one append copies."""
BYTES_MAX = 4 << 20
"""How many bytes of results and context it copies, if it is more than one sub-step."""

AS_IT_WAS: Final = object()
"""The parent's input."""

_SETTLES = frozenset({"SubStepExpanded", "SubStepCompleted", "SubStepFailed", "SubStepSkipped", "SubStepInherited"})


def fork(
    store: Store,
    job_id: str,
    *,
    by: str,
    at: int | None = None,
    values: Mapping[str, Any] | None = None,
    unset: Sequence[str] = (),
    input: Any = AS_IT_WAS,
    definition: AnyDefinition | None = None,
    **how: Unpack[How],
) -> Appended:
    """A new job that goes on from what the other was at version `at`, or is now; with context and input edited.

    The same request id again is the same fork, made to its end if it was not. Raises JobNotFound, ActionRefused,
    ValueRefused, InputRefused, KeyConflict where the request id was another fork's.
    """
    clock = how.get("clock") or store_clock(store)
    past, vault = _past(store, job_id, at), vault_of(store, job_id, definition)
    require(load(store, job_id).state, "fork")
    parent = past.parent.state
    edits = given_context(definition, parent, dict(values or {}), unset, vault)
    edited = {*edits, *unset}
    inherited = past.inherited(edited)
    forked = JobForked(
        workflow=parent["workflow"],
        workflow_version=parent["workflow_version"],
        plan=dict(parent["plan"]),
        input=parent["input"] if input is AS_IT_WAS else given_input(definition, input, vault, parent),
        context=past.context(edited) | edits,
        from_job_id=job_id,
        from_version=parent["version"],
        parent_hash=past.parent.position.hash,
        inherited=len(inherited),
        key=_key(how),
        by=given_name(by),
        reason=how.get("reason") or None,
    )
    fork_id, now = clock.new_id(), clock.now()
    if how.get("dry_run"):
        return Appended(begun(fork_id, [forked, *inherited], now), [forked, *inherited])
    asked = [job_id, at, edits, list(unset), None if input is AS_IT_WAS else [forked.input]]
    made = _create(store, fork_id, [forked, *_chunk(inherited)], now, clock, asked)
    if made == fork_id:
        return Appended(_complete(store, made, inherited, clock), [forked, *inherited])
    earlier = load(store, made).state
    assert earlier["origin"] is not None
    inherited = _past(store, job_id, earlier["origin"]["version"]).inherited(edited)
    return Appended(_complete(store, made, inherited, clock), [], repeated=True)


# --- what a fork inherits: pure --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Past:
    """A job as it was, and what only its log says of how it came to that."""

    parent: Loaded
    settled_at: dict[Key, int]
    """The version at which each sub-step last settled."""
    written: dict[tuple[str, str], Any]
    """By context field and writer, what that last wrote."""

    @staticmethod
    def of(parent: Loaded, log: Iterable[Event]) -> _Past:
        past = _Past(parent, {}, {})
        for event in log:
            past.written.update({(field, writer): value for field, writer, value in writes_of(event)})
            if event.type in _SETTLES:
                past.settled_at[key_of(event.data["phase"], event.data["sub_step"])] = event.version
        return past

    def context(self, edited: set[str]) -> dict[str, Any]:
        """The fields that a person wrote, or that the job began with; but for those edited."""
        writers = self.parent.state["writers"]
        by_hand = {field: self.written[field, OPERATOR] for field in writers if OPERATOR in writers[field]}
        return {field: value for field, value in by_hand.items() if field not in edited and value is not UNSET}

    def inherited(self, edited: set[str]) -> list[SubStepInherited]:
        """The settled sub-steps, in the order they settled, with what they wrote after any person did."""
        state = self.parent.state
        shape = Shape.of(state["plan"])
        keys = [key for key in shape.sub_steps if _is_inherited(state, shape, key)]
        return [
            copy
            for key in sorted(keys, key=self.settled_at.__getitem__)
            for copy in _copies(state, key, self._written_by(key, edited), self.settled_at[key])
        ]

    def _written_by(self, key: Key, edited: set[str]) -> dict[str, Any]:
        """What it wrote last, or its items did: in the fork all of that is the group's."""
        written = {}
        for field, writers in self.parent.state["writers"].items():
            of_key = [writer for writer in writers if writer != OPERATOR and key_of_place(writer) == key]
            latest = max(of_key, key=writers.__getitem__, default=None)
            if field not in edited and latest is not None and writers[latest] > writers.get(OPERATOR, 0):
                written[field] = self.written[field, latest]
        return written


def _is_inherited(state: State, shape: Shape, key: Key) -> bool:
    """Whether it has settled for good: it neither stopped the job nor was undone. A fan-out needs only be expanded."""
    sub_step = sub_step_of(state, key)
    if is_expanded(sub_step):
        return not sub_step["compensation"]
    return sub_step["status"] in SETTLED and not sub_step["compensation"] and not stops_the_job(state, shape, key)


def _copies(state: State, key: Key, written: dict[str, Any], from_event: int) -> list[SubStepInherited]:
    """A sub-step in one event; a fan-out in as many as its items fill, of which the last says how it stands."""
    sub_step = sub_step_of(state, key)
    whole = _copy(state, key, written, from_event)
    if not is_expanded(sub_step):
        return [whole]
    chunks = chunks_of(to_inherit(sub_step), lambda item: len(encode(item)))
    parts = [
        whole.model_copy(
            update={"items": chunk, "group": str(from_event), "status": "in_progress", "context_written": {}}
        )
        for chunk in chunks
    ]
    return [*parts[:-1], whole.model_copy(update={"items": chunks[-1], "group": str(from_event)})]


def _copy(state: State, key: Key, written: dict[str, Any], from_event: int) -> SubStepInherited:
    phase, name = split_key(key)
    sub_step = sub_step_of(state, key)
    settled = sub_step["status"] in SETTLED and not stops_the_job(state, Shape.of(state["plan"]), key)
    status: Any = sub_step["status"] if settled else "in_progress"
    return SubStepInherited(
        phase=phase,
        sub_step=name,
        generation=sub_step["generation"],
        attempts=sub_step["attempts"],
        status=status,
        result=sub_step["result"],
        error=sub_step["error"],
        reason=sub_step["reason"],
        idempotency_key=sub_step["idempotency_key"],
        context_written=written,
        started_at=sub_step["started_at"] if settled else None,
        completed_at=sub_step["completed_at"],
        from_event=from_event,
    )


def _key(how: How) -> str | None:
    """The key under which the same request finds the same fork."""
    request_id = how.get("request_id")
    return None if request_id is None else check_name(f"fork {request_id}", "request")


# --- the appends -----------------------------------------------------------------------------------------------------


def _past(store: Store, job_id: str, at: int | None) -> _Past:
    parent = load(store, job_id, at)
    return _Past.of(parent, store.read(job_id, 0, parent.state["version"]))


def _create(store: Store, job_id: str, data: Sequence[EventData], at: str, clock: Clock, asked: list[Any]) -> str:
    """The id of the fork that begins with these events, or of the one that the same request has made."""
    forked = data[0]
    assert isinstance(forked, JobForked)
    events = seal(job_id, Position(0, forked.parent_hash), data, at, clock)
    job = NewJob(job_id, events, head_of(begun(job_id, data, at)), sha256(encode(asked)).hexdigest())
    return until_known(lambda: store.create(job))


def _complete(store: Store, job_id: str, inherited: Sequence[SubStepInherited], clock: Clock) -> State:
    """Append whatever the fork still lacks, chunk by chunk; its state then."""
    while not is_whole((loaded := load(store, job_id)).state):
        _append_missing(store, loaded, inherited, clock)
    return loaded.state


def _append_missing(store: Store, loaded: Loaded, inherited: Sequence[SubStepInherited], clock: Clock) -> None:
    """The next chunk. Raises ActionRefused where somebody cancelled the fork meanwhile."""
    job_id, request_id = loaded.state["job_id"], clock.new_id()

    def rule(head: Head, tail: Sequence[Event]) -> Proposal | None:
        before = fold(tail, loaded.state)
        if before["status"] in ENDED:
            require(before, "fork")
        missing = (before["origin"] or {})["missing"]
        if not missing:
            return None
        at, chunk = max(clock.now(), before["recorded_at"]), _chunk(inherited[-missing:])
        state = _foreseen(before, chunk, at)
        return Proposal(seal(job_id, head.position, chunk, at, clock), head_of(state))

    until_known(lambda: store.append_locked(job_id, loaded.position, rule, request_id=request_id))


def _chunk(inherited: Sequence[SubStepInherited]) -> list[SubStepInherited]:
    """As many of the first ones as one append takes."""
    chunk: list[SubStepInherited] = []
    left = BYTES_MAX
    for each in inherited[:EVENTS_MAX]:
        left -= len(encode(each.as_data()))
        if chunk and left < 0:
            break
        chunk.append(each)
    return chunk


def begun(job_id: str, data: Sequence[EventData], at: str) -> State:
    """The state after a log's first events."""
    first = data[0]
    begun = evolve(None, Event(job_id, 1, "", first.type(), first.schema_version, at, first.as_data(), ""))
    return _foreseen(begun, data[1:], at)


def _foreseen(state: State, data: Sequence[EventData], at: str) -> State:
    evolution = Evolution(state)
    for each in data:
        evolution.foresee(each, at)
    return evolution.state
