"""What a death means for the attempts that were under way: decided from the log alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from steplog import Retry, Workflow
from steplog.engine import facts as fact
from steplog.engine.decider import decide, in_progress, next_due
from steplog.engine.facts import AttemptId, Fact, Situation
from steplog.engine.plan import plan_of
from steplog.eventstore.clock import later
from steplog.eventstore.events import Event, EventData, JobClaimed, JobCreated, JobResumed, SubStepInterrupted
from steplog.projections.evolve import Evolution, evolve
from steplog.projections.plan import OnInterrupt, Shape

AT = "2026-11-23T10:00:00.000000Z"
ERROR = {"type": "ConnectionError", "message": "503", "traceback": "", "retryable": True}
TWICE = Retry(attempts=2, wait=0, jitter=0)


class Job:
    """A job that goes on in the decider's mind: no store, no handlers, one second per decision."""

    def __init__(self, wf: Workflow[Any, Any]) -> None:
        created = JobCreated(workflow=wf.name, workflow_version="1", plan=dict(plan_of(wf)))
        self.state = evolve(None, Event("j1", 1, "", created.type(), 1, AT, created.as_data(), ""))
        self.shape = Shape.of(self.state["plan"])
        self.situation = Situation(interruptions_max=3)
        self.claim(1)
        self.decide()

    def claim(self, epoch: int) -> None:
        evolution = Evolution(self.state)
        evolution.foresee(JobClaimed(worker_id=f"w{epoch}", epoch=epoch, claim_id="c", reason="takeover"), self.now())
        self.state = evolution.state

    def resume(self) -> None:
        evolution = Evolution(self.state)
        evolution.foresee(JobResumed(by="anna"), self.now())
        self.state = evolution.state
        self.claim(self.state["epoch"] + 1)

    def decide(self, *happened: Fact) -> list[EventData]:
        decision = decide(self.state, self.shape, happened, self.now(), self.situation)
        self.state = decision.state
        return list(decision.events)

    def die(self, cause: Any = "owner died") -> list[EventData]:
        """The owner dies; the next one decides, and starts what can start."""
        self.claim(self.state["epoch"] + 1)
        return self.decide(fact.Interrupted(cause, "w"))

    def fail(self) -> list[EventData]:
        return self.decide(*(fact.Failed(of, ERROR, 1.0) for of in in_progress(self.state)))

    def complete(self, name: str) -> list[EventData]:
        (of,) = (of for of in in_progress(self.state) if of.sub_step == name)
        return self.decide(fact.Completed(of, None, {}, 1.0))

    def now(self) -> str:
        return later(self.state["recorded_at"], 1.0)


def names(events: Sequence[EventData]) -> list[str]:
    return [event.type() for event in events]


def flaky(retry: Retry = TWICE, on_interrupt: OnInterrupt = "retry") -> Job:
    wf = Workflow("interrupted")
    wf.sub_step(name="charge", retry=retry, on_interrupt=on_interrupt)(lambda: None)
    return Job(wf)


def test_an_interrupted_attempt_runs_again_as_the_next_one_with_the_same_key() -> None:
    job = flaky()
    before = job.state["phases"]["main"]["sub_steps"]["charge"]["idempotency_key"]

    events = job.die()

    assert names(events) == ["SubStepInterrupted", "SubStepStarted"]
    after = job.state["phases"]["main"]["sub_steps"]["charge"]
    assert (after["attempts"], after["idempotency_key"]) == (2, before)


def test_an_interruption_uses_up_none_of_the_attempts() -> None:
    job = flaky()
    job.die()

    assert names(job.fail()) == ["SubStepFailed", "SubStepRetryScheduled", "SubStepStarted"]


def test_failures_before_a_death_still_count_after_it() -> None:
    job = flaky()
    job.fail()
    job.die()

    assert names(job.fail()) == ["SubStepFailed", "PhaseFailed", "JobFailed"]


def test_what_was_completed_is_left_alone_by_the_death_of_a_sibling() -> None:
    wf = Workflow("siblings")
    wf.sub_step(name="done")(lambda: None)
    wf.sub_step(name="open")(lambda: None)
    job = Job(wf)
    job.complete("done")

    touched = {(event.type(), event.as_data()["sub_step"]) for event in job.die()}

    assert touched == {("SubStepInterrupted", "open"), ("SubStepStarted", "open")}


def test_the_third_death_of_its_owner_parks_the_job() -> None:
    job = flaky()
    job.die()
    job.die()
    assert names(job.decide()) == ["SubStepStarted"]

    assert names(job.die()) == ["SubStepInterrupted", "JobParked"]
    assert job.state["reason"] == "crash loop: main/charge was interrupted 3 times"


def test_after_its_second_death_a_sub_step_waits_before_it_runs_again() -> None:
    job = flaky()
    assert names(job.die()) == ["SubStepInterrupted", "SubStepStarted"]

    (interrupted,) = job.die()

    assert isinstance(interrupted, SubStepInterrupted)
    assert interrupted.retry_at == later(job.state["recorded_at"], 1.0)
    assert next_due(job.state, job.state["recorded_at"]) == interrupted.retry_at


def test_of_several_that_may_have_killed_their_owner_one_runs_at_a_time() -> None:
    wf = Workflow("suspects")
    for name in ("one", "two", "three"):
        wf.sub_step(name=name)(lambda: None)
    job = Job(wf)
    job.die()
    job.die()

    assert [of.sub_step for of in in_progress(job.state)] == []
    job.decide()
    assert [of.sub_step for of in in_progress(job.state)] == ["one"]
    job.complete("one")
    assert [of.sub_step for of in in_progress(job.state)] == ["two"]


def test_only_the_one_that_ran_alone_counts_a_third_death() -> None:
    wf = Workflow("suspects")
    for name in ("killer", "innocent"):
        wf.sub_step(name=name)(lambda: None)
    job = Job(wf)
    job.die()
    job.die()
    job.decide()

    assert names(job.die()) == ["SubStepInterrupted", "JobParked"]
    counted = {name: step["interruptions"] for name, step in job.state["phases"]["main"]["sub_steps"].items()}
    assert counted == {"killer": 3, "innocent": 2}


def test_being_handed_back_is_not_counted() -> None:
    job = flaky()
    job.situation = job.situation._replace(stopping=True)

    events = job.die("handed back")

    assert names(events) == ["SubStepInterrupted", "JobReleased"]
    assert job.state["phases"]["main"]["sub_steps"]["charge"]["interruptions"] == 0


@pytest.mark.parametrize(
    ("policy", "follows"),
    [
        ("hold", ["SubStepInterrupted", "JobParked"]),
        ("fail", ["SubStepInterrupted", "SubStepFailed", "PhaseFailed", "JobFailed"]),
    ],
)
def test_a_policy_says_what_an_interruption_leads_to(policy: OnInterrupt, follows: list[str]) -> None:
    assert names(flaky(on_interrupt=policy).die()) == follows


@pytest.mark.parametrize(
    ("policy", "last"), [("retry", "SubStepStarted"), ("hold", "JobParked"), ("fail", "JobFailed")]
)
def test_the_policy_holds_for_an_attempt_cut_off_by_a_worker_that_stopped(policy: OnInterrupt, last: str) -> None:
    job = flaky(on_interrupt=policy)
    job.situation = job.situation._replace(stopping=True)
    job.die("handed back")
    job.situation = job.situation._replace(stopping=False)
    job.claim(2)

    assert names(job.decide())[-1] == last


@pytest.mark.parametrize("cause", ["owner died", "handed back"])
def test_a_person_who_resumes_a_held_job_lets_the_attempt_run_again(cause: str) -> None:
    job = flaky(on_interrupt="hold")
    job.situation = job.situation._replace(stopping=True)
    job.die(cause)
    job.situation = job.situation._replace(stopping=False)
    job.claim(2)
    job.decide()
    job.resume()

    assert names(job.decide()) == ["SubStepStarted"]


def test_a_failed_job_that_is_resumed_forgets_the_deaths_before_it_failed() -> None:
    job = flaky(Retry(attempts=1))
    job.die()
    job.fail()
    job.resume()

    assert job.state["phases"]["main"]["sub_steps"]["charge"]["interruptions"] == 0


def test_a_checkpoint_of_another_attempt_is_told_to_be_unrecorded() -> None:
    job = flaky()
    stale = fact.CheckpointReached(AttemptId("main", "charge", 1, 7), 1, {})

    decision = decide(job.state, job.shape, [stale], job.now(), job.situation)

    assert (list(decision.events), list(decision.unrecorded)) == ([], [stale])


@pytest.mark.parametrize("change", [{"attempt": 1}, {"attempt": 3}, {"generation": 2}], ids=str)
def test_an_outcome_of_another_attempt_does_not_settle_the_one_in_progress(change: dict[str, Any]) -> None:
    job = flaky()
    job.die()
    stale = AttemptId("main", "charge", 1, 2)._replace(**change)

    events = job.decide(fact.Completed(stale, "late", {"a": 1}, 1.0))

    assert names(events) == ["LateOutcome"]
    assert [of.attempt for of in in_progress(job.state)] == [2]
