"""Becoming a job's owner: one append that claims it and records what its former owner left unsettled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from steplog.engine.actions import Who, resume
from steplog.engine.adoption import adopted, adoption
from steplog.engine.allowed import allowed_actions, require
from steplog.engine.decider import decide
from steplog.engine.errors import PlanNotAdopted, SecretsErased
from steplog.engine.facts import Interrupted, Situation
from steplog.engine.history import Loaded, position_of
from steplog.eventstore.chain import end_of, seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.errors import JobOwned, WrongState
from steplog.eventstore.events import Event, EventData, JobClaimed, JobResumed, PlanAdopted
from steplog.eventstore.store import Append, Claim, Head, Proposal, Store
from steplog.projections.evolve import Evolution, fold
from steplog.projections.head import head_of
from steplog.projections.plan import Plan, Shape
from steplog.projections.state import ENDED, STOPPED, State, is_whole


def claim_job(
    store: Store,
    clock: Clock,
    worker_id: str,
    loaded: Loaded,
    *,
    resume_by: str | None = None,
    adopting: PlanAdopted | None = None,
    anew: bool = False,
) -> tuple[Loaded, Claim]:
    """The job as it is under the new claim, with the plan adopted if one is given; attempts that were in flight are
    interrupted.

    A job that waits for a person is claimed only with `resume_by`, which says who resumes it, and one that this worker
    owns, for it runs it or is about to, only `anew`. Raises JobNotFound, JobOwned while its owner lives, WorkerDead,
    WrongState, PlanNotAdopted, SecretsErased, LogError.
    """
    job_id = loaded.state["job_id"]
    outcome: list[Loaded] = []

    def rule(head: Head, tail: Sequence[Event], claim: Claim) -> Proposal:
        if head.worker_id == worker_id and not anew:
            raise JobOwned(job_id, worker_id, None)
        before = fold(tail, loaded.state)
        if adopting is not None:
            refuse_unsound(before, cast("Plan", adopting.plan))
        position = position_of(tail[-1]) if tail else loaded.position
        data, state = _taking_over(before, claim, max(clock.now(), before["recorded_at"]), resume_by, adopting)
        events = seal(job_id, position, data, state["recorded_at"], clock)
        outcome[:] = [Loaded(state, end_of(events, position), loaded.stored_at)]
        return Proposal(events, head_of(state))

    claim = store.claim(job_id, worker_id, loaded.position, rule)
    return outcome[0], claim


def refuse_unsound(state: State, plan: Plan) -> None:
    """Raise PlanNotAdopted where the job cannot go on with that plan."""
    found = adoption(state, plan)
    if found.obstacles:
        raise PlanNotAdopted(state["job_id"], found.differences, found.obstacles)


def claim_of(clock: Clock, worker_id: str, loaded: Loaded, epoch: int) -> tuple[Loaded, Append]:
    """The claim of a job nobody owns, to be stored if its log still ends there: the job under it, and what to append.

    `epoch` is that of its head. Raises WrongState.
    """
    claim = Claim(worker_id, epoch + 1, clock.new_id())
    at = max(clock.now(), loaded.state["recorded_at"])
    data, state = _taking_over(loaded.state, claim, at, None, None)
    events = seal(loaded.state["job_id"], loaded.position, data, at, clock)
    item = Append(state["job_id"], loaded.position, claim, events, head_of(state))
    return Loaded(state, end_of(events, loaded.position), loaded.stored_at), item


def _taking_over(
    state: State, claim: Claim, at: str, resume_by: str | None, adopting: PlanAdopted | None
) -> tuple[list[EventData], State]:
    if state["erased"]:
        raise SecretsErased(state["job_id"], state["job_id"])
    if resume_by is not None and state["status"] in ENDED:
        require(state, "resume")
    may_run = state["mode"] == "engine" and is_whole(state) and state["status"] not in ENDED
    if not may_run or (state["status"] in STOPPED and resume_by is None):
        raise WrongState(state["job_id"], state["status"], "run it", allowed_actions(state))
    before, former = state, state["worker_id"]
    data: list[EventData] = [] if adopting is None else [adopting]
    if adopting is not None:
        state = adopted(state, adopting)
    if resume_by is not None and state["status"] in STOPPED:
        data += resume(state, Who(resume_by))
    reason = _reason(state, resumed=any(isinstance(event, JobResumed) for event in data))
    data.append(JobClaimed(worker_id=claim.worker_id, epoch=claim.epoch, claim_id=claim.claim_id, reason=reason))
    evolution = Evolution(before)
    for event in data:
        evolution.foresee(event, at)
    if former is None:
        return data, evolution.state
    quiet = Situation(stopping=True)
    decision = decide(
        evolution.state, Shape.of(evolution.state["plan"]), [Interrupted("owner died", former)], at, quiet
    )
    return [*data, *decision.events], decision.state


def _reason(state: State, *, resumed: bool) -> Literal["first", "takeover", "wake", "resume"]:
    if resumed:
        return "resume"
    if state["worker_id"] is not None:
        return "takeover"
    return "wake" if state["epoch"] else "first"
