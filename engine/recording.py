"""Jobs that an engine of somebody else's runs: the same events, appended by whoever holds the claim. Never claimed by
our workers, fenced like any owner: a recorder that opens a job anew fences the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from steplog.engine.actions import Who, resume
from steplog.engine.allowed import allowed_actions
from steplog.engine.decider import decide
from steplog.engine.errors import LogRegressed, OwnershipLost, RecordRefused
from steplog.engine.facts import Interrupted, Situation
from steplog.engine.history import Loaded, load, position_of
from steplog.engine.operators import until_known
from steplog.engine.store_clock import store_clock
from steplog.engine.values import input_hash, plain
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.codec import check_name
from steplog.eventstore.errors import DamagedLog, JobNotFound, StoreUnavailable, WrongState
from steplog.eventstore.events import CATALOGUE, Event, EventData, JobClaimed, JobCreated
from steplog.eventstore.store import Answer, Append, Claim, Code, Head, NewJob, Proposal, Store
from steplog.projections.evolve import Evolution, evolve, fold
from steplog.projections.head import head_of
from steplog.projections.plan import Plan, Shape
from steplog.projections.state import ENDED, STOPPED, State

NOT_RECORDED = frozenset({"JobCreated", "JobForked", "SubStepInherited", "JobClaimed", "PlanAdopted", "SecretsErased"})
"""Events that only steplog itself writes."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A job of somebody else's engine, and the claim under which its events are appended."""

    loaded: Loaded
    claim: Claim

    @property
    def job_id(self) -> str:
        return self.loaded.state["job_id"]

    @property
    def version(self) -> int:
        return self.loaded.state["version"]


@dataclass(frozen=True, slots=True)
class Described:
    """What a recorded job begins with."""

    workflow: str
    plan: Plan
    version: str = "1"
    input: Any = None
    context: Mapping[str, Any] | None = None
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class GivenEvent:
    """An event as somebody else's engine sends it: the same id again is the same event."""

    event_id: str
    type: str
    data: Mapping[str, Any]


def open_recording(store: Store, job: Described, *, by: str, key: str | None = None) -> Recording:
    """Create the job, or open the one that has the key, under a fresh claim that fences the one before.

    What was in progress under the former claim is interrupted; a job that stopped goes on. Raises KeyConflict where
    the key belongs to another input, WrongState where that job has ended or is one of our own engine's.
    """
    clock = store_clock(store)
    first = _first(job, by, key, clock)
    new, state = first
    job_id = until_known(lambda: store.create(new))
    if job_id == new.job_id:
        assert new.claim is not None
        return Recording(Loaded(state, end_of(new.events, Position())), new.claim)
    return claim_recording(store, job_id, by=by)


def claim_recording(store: Store, job_id: str, *, by: str) -> Recording:
    """A fresh claim of a recorded job. Raises JobNotFound, WrongState, LogError."""
    clock = store_clock(store)
    known = load(store, job_id)
    outcome: list[Recording] = []

    def rule(head: Head, tail: Sequence[Event]) -> Proposal:
        before = fold(tail, known.state)
        position = position_of(tail[-1]) if tail else known.position
        claim = Claim("", head.epoch + 1, clock.new_id())
        at = max(clock.now(), before["recorded_at"])
        data, state = _claimed(before, claim, by, at)
        events = seal(job_id, position, data, at, clock)
        outcome[:] = [Recording(Loaded(state, end_of(events, position)), claim)]
        return Proposal(events, head_of(state), claim.epoch, claim)

    request_id = clock.new_id()
    until_known(lambda: store.append_locked(job_id, known.position, rule, request_id=request_id))
    return outcome[0]


def _first(job: Described, by: str, key: str | None, clock: Clock) -> tuple[NewJob, State]:
    created = JobCreated(
        workflow=check_name(job.workflow, "workflow"),
        workflow_version=job.version,
        plan=dict(job.plan),
        input=plain(job.input, "input"),
        context=plain(dict(job.context or {}), "context"),
        key=None if key is None else check_name(key, "key"),
        tags=dict(job.tags or {}),
        mode="recorded",
    )
    job_id, at, claim = clock.new_id(), clock.now(), Claim("", 1, clock.new_id())
    claimed = JobClaimed(worker_id=by, epoch=1, claim_id=claim.claim_id, reason="first")
    events = seal(job_id, Position(), [created, claimed], at, clock)
    begun = evolve(None, Event(job_id, 1, "", created.type(), created.schema_version, at, created.as_data(), ""))
    evolution = Evolution(begun)
    evolution.foresee(claimed, at)
    return NewJob(job_id, events, head_of(evolution.state), input_hash(job.input), claim), evolution.state


def _claimed(state: State, claim: Claim, by: str, at: str) -> tuple[list[EventData], State]:
    if state["mode"] != "recorded" or state["status"] in ENDED:
        raise WrongState(state["job_id"], state["status"], "record into it", allowed_actions(state))
    resumed = resume(state, Who(by)) if state["status"] in STOPPED else []
    reason: Any = "resume" if resumed else "takeover"
    claimed = JobClaimed(worker_id=by, epoch=claim.epoch, claim_id=claim.claim_id, reason=reason)
    data: list[EventData] = [*resumed, claimed]
    evolution = Evolution(state)
    for event in data:
        evolution.foresee(event, at)
    quiet = Situation(stopping=True)
    left = [Interrupted("owner died", state["worker_id"] or by)]
    decision = decide(evolution.state, Shape.of(state["plan"]), left, at, quiet)
    return [*data, *decision.events], decision.state


# --- appending -------------------------------------------------------------------------------------------------------


def append_given(store: Store, job_id: str, claim: Claim, expected_version: int, given: Sequence[GivenEvent]) -> int:
    """Append what somebody else's engine sends, behind the version that it knows; the job's version afterwards.

    An event is stored once, behind whichever version it is sent again. Raises RecordRefused for events that do not fit
    the catalogue or the job, WrongState where the log has gone on, OwnershipLost under a former claim, JobNotFound,
    PayloadRefused.
    """
    if not given:
        raise RecordRefused(job_id, "no events were given")
    if len({each.event_id for each in given}) < len(given):
        raise RecordRefused(job_id, "two of the events have the same id")
    known, stored = _known(store, job_id, expected_version)
    if known.state["mode"] != "recorded":
        raise WrongState(job_id, known.state["status"], "record into it", allowed_actions(known.state))
    if known.state["version"] < expected_version:
        raise _behind(known.state, expected_version, known.state["version"])
    clock = store_clock(store)
    data = {each.event_id: _checked(job_id, each) for each in given}
    fresh = {event_id: each for event_id, each in data.items() if event_id not in stored}
    if not fresh:
        return _version_under(store.head(job_id), claim)
    item, state = _item(known, claim, list(fresh.values()), clock, _Given(clock, fresh))
    answer = _sent(store, item)
    if answer.code is Code.CONFLICT:
        raise _behind(state, expected_version, answer.version)
    if answer.code is not Code.STORED:
        raise _refusal(answer)
    return item.events[-1].version


def _behind(state: State, expected: int, version: int) -> WrongState:
    return WrongState(state["job_id"], state["status"], f"append behind version {expected} of {version}", [])


def _known(store: Store, job_id: str, until: int) -> tuple[Loaded, set[str]]:
    """The job at that version, and the ids of its events up to there."""
    events = list(store.read(job_id, 0, until))
    if not events:
        raise JobNotFound(job_id)
    return Loaded(fold(events), position_of(events[-1])), {event.event_id for event in events}


def _version_under(head: Head, claim: Claim) -> int:
    """The job's version, for whoever has its claim. Raises OwnershipLost."""
    if (head.epoch, head.claim_id) != (claim.epoch, claim.claim_id):
        raise _refusal(Answer(head.job_id, Code.FENCED, head.version))
    return head.version


def append_next(store: Store, clock: Clock, recording: Recording, data: Sequence[EventData]) -> Recording | None:
    """The recording behind these events, durable; None where somebody else appended first: read, and decide again.

    Raises RecordRefused, OwnershipLost.
    """
    item, state = _item(recording.loaded, recording.claim, data, clock, clock)
    answer = _sent(store, item)
    if answer.code is Code.CONFLICT:
        return None
    if answer.code is not Code.STORED:
        raise _refusal(answer)
    return Recording(Loaded(state, end_of(item.events, recording.loaded.position)), recording.claim)


def _item(known: Loaded, claim: Claim, data: Sequence[EventData], clock: Clock, ids: Clock) -> tuple[Append, State]:
    job_id = known.state["job_id"]
    at = max(clock.now(), known.state["recorded_at"])
    state = _foreseen(known.state, data, at)
    events = seal(job_id, known.position, data, at, ids)
    return Append(job_id, known.position, claim, events, head_of(state), release=state["status"] in ENDED), state


def _foreseen(state: State, data: Iterable[EventData], at: str) -> State:
    evolution = Evolution(state)
    try:
        for each in data:
            if evolution.state["status"] in ENDED:
                raise RecordRefused(
                    state["job_id"], f"the job is {evolution.state['status']}: nothing comes after that"
                )
            evolution.foresee(each, at)
    except DamagedLog as error:
        raise RecordRefused(state["job_id"], error.why) from None
    return evolution.state


def _checked(job_id: str, given: GivenEvent) -> EventData:
    kind = CATALOGUE.get(given.type)
    if kind is None or given.type in NOT_RECORDED:
        raise RecordRefused(job_id, f"{given.type!r} is no event that can be recorded")
    try:
        return kind.model_validate(plain(dict(given.data), given.type), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordRefused(job_id, f"{given.type}: {where}: {first['msg']}") from None


def _sent(store: Store, item: Append) -> Answer:
    """What became of the append; the same is sent again until it is known."""
    (answer,) = until_known(lambda: store.append([item]))
    return store.append_waiting(item) if answer.code is Code.BUSY else answer


def _refusal(answer: Answer) -> Exception:
    match answer.code:
        case Code.FENCED:
            return OwnershipLost(answer.job_id, "another recorder has opened it")
        case Code.MISSING:
            return JobNotFound(answer.job_id)
        case Code.REGRESSED:
            return LogRegressed(answer.job_id, answer.version)
        case _:
            return StoreUnavailable(f"job {answer.job_id} is locked: send the same again")


class _Given:
    """Ids of events that somebody else has drawn."""

    def __init__(self, clock: Clock, event_ids: Iterable[str]) -> None:
        self._clock = clock
        self._event_ids = iter(event_ids)

    def now(self) -> str:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def new_id(self) -> str:
        return next(self._event_ids)
