"""A log that went backwards under its living owner: what was acknowledged is gone, and a person has to know.

A database restored from an older backup, or a standby that lacked the last commits, now ends before what the owner
knows. Nothing the owner holds in memory is put onto that older log: the job is claimed anew as it is there, and parked.
"""

from __future__ import annotations

from collections.abc import Sequence

from steplog.engine.decider import decide
from steplog.engine.errors import OwnershipLost
from steplog.engine.facts import Interrupted, Situation
from steplog.engine.history import load, position_of
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.errors import JobOwned, WorkerDead
from steplog.eventstore.events import Event, EventData, JobClaimed, JobParked
from steplog.eventstore.store import Append, Claim, Code, Head, Proposal, Store
from steplog.eventstore.writer import Writer
from steplog.projections.evolve import Evolution, fold
from steplog.projections.head import head_of
from steplog.projections.plan import Shape
from steplog.projections.state import ENDED, STOPPED, State


def park_regressed(store: Store, writer: Writer, clock: Clock, *, worker_id: str, job_id: str, lost: Position) -> State:
    """The job's state, parked, with the version and hash that were acknowledged and are lost.

    Raises OwnershipLost where somebody else runs the job by now, or where it ended or stopped on the log as it is.
    """
    state, position, claim = _claimed_anew(store, clock, worker_id, job_id)
    parked = JobParked(
        reason="log regressed",
        detail=f"version {lost.version} was acknowledged, and the log was found without it",
        lost_version=lost.version,
        lost_hash=lost.hash,
    )
    evolution = Evolution(state)
    evolution.foresee(parked, max(clock.now(), state["recorded_at"]))
    state = evolution.state
    events = seal(job_id, position, [parked], state["recorded_at"], clock)
    answer = writer.append(Append(job_id, position, claim, events, head_of(state), release=True)).result()
    if answer.code is not Code.STORED:
        raise OwnershipLost(job_id, f"the log went backwards, and then the job was {answer.code}")
    return state


def _claimed_anew(store: Store, clock: Clock, worker_id: str, job_id: str) -> tuple[State, Position, Claim]:
    """The job as the older log has it, ours again; attempts in flight there may have happened: they are interrupted."""
    loaded = load(store, job_id)
    outcome: list[tuple[State, Position]] = []

    def rule(head: Head, tail: Sequence[Event], claim: Claim) -> Proposal:
        before = fold(tail, loaded.state)
        if before["status"] in ENDED | STOPPED:
            raise OwnershipLost(job_id, f"the log went backwards, and there the job is {before['status']}")
        at = max(clock.now(), before["recorded_at"])
        claimed = JobClaimed(worker_id=worker_id, epoch=claim.epoch, claim_id=claim.claim_id, reason="takeover")
        data, state = _taken_over(before, claimed, at)
        position = position_of(tail[-1]) if tail else loaded.position
        events = seal(job_id, position, data, at, clock)
        outcome[:] = [(state, end_of(events, position))]
        return Proposal(events, head_of(state))

    try:
        claim = store.claim(job_id, worker_id, loaded.position, rule)
    except (JobOwned, WorkerDead) as error:
        raise OwnershipLost(job_id, f"the log went backwards, and {error}") from error
    state, position = outcome[0]
    return state, position, claim


def _taken_over(before: State, claimed: JobClaimed, at: str) -> tuple[list[EventData], State]:
    evolution = Evolution(before)
    evolution.foresee(claimed, at)
    died = Interrupted("owner died", before["worker_id"] or claimed.worker_id)
    decision = decide(evolution.state, Shape.of(before["plan"]), [died], at, Situation(stopping=True))
    return [claimed, *decision.events], decision.state
