"""How long a job, or a sub-step with all its attempts, may take: counted in the log's time, whatever crashes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from test_interruptions import Job, names

from steplog import Retry, Settings, Step, Workflow
from steplog.engine import facts as fact
from steplog.engine.adoption import differences
from steplog.engine.decider import decide, in_progress, next_due
from steplog.engine.errors import DefinitionError
from steplog.engine.facts import AttemptId
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.engine.plan import plan_of
from steplog.eventstore.clock import later
from steplog.eventstore.events import SignalReceived
from steplog.eventstore.store import Store
from steplog.projections.evolve import Evolution

ERROR = {"type": "ConnectionError", "message": "503", "traceback": "", "retryable": True}
DONE_S_MAX = 20
QUICK = Settings(heartbeat_s=0.05, grace_s=0.2)


class LateJob(Job):
    """The same, with an instant of its own for each decision."""

    def decide_at(self, at: str, *happened: fact.Fact) -> list[str]:
        decision = decide(self.state, self.shape, happened, at, self.situation)
        self.state = decision.state
        return names(decision.events)

    def begun_at(self, name: str) -> str:
        began = self.state["phases"]["main"]["sub_steps"][name]["started_at"]
        assert began is not None
        return began

    def fail_once(self) -> list[str]:
        (of,) = in_progress(self.state)
        return self.decide_at(self.now(), fact.Failed(of, ERROR, 1.0))


def with_deadline(**options: Any) -> LateJob:
    wf: Workflow[Any, Any] = Workflow("late")
    wf.sub_step(name="work", **options)(lambda: None)
    return LateJob(wf)


def job_with_deadline(deadline: str) -> LateJob:
    wf: Workflow[Any, Any] = Workflow("late", deadline=deadline)
    wf.sub_step(name="work")(lambda: None)
    return LateJob(wf)


def test_a_sub_step_that_has_had_its_time_fails_although_its_attempt_still_runs() -> None:
    job = with_deadline(deadline="1m")
    late = later(job.begun_at("work"), 60.0)

    assert next_due(job.state, job.state["recorded_at"]) == late
    assert job.decide_at(later(late, -0.1)) == []
    assert job.decide_at(late) == ["SubStepFailed", "PhaseFailed", "JobFailed"]
    assert job.state["error"] is not None
    assert job.state["error"]["message"] == "main/work did not end within its deadline of 60 s"


def test_a_deadline_counts_from_the_first_attempt_whoever_owned_the_job() -> None:
    job = with_deadline(deadline="1m", retry=Retry(attempts=9, wait="40s", jitter=0, factor=1))
    late = later(job.begun_at("work"), 60.0)

    assert job.fail_once() == ["SubStepFailed", "SubStepRetryScheduled"]
    job.die()
    assert job.decide_at(later(late, -2.0)) == ["SubStepStarted"]
    assert job.now() < late
    assert names(job.die()) == ["SubStepInterrupted", "SubStepFailed", "PhaseFailed", "JobFailed"]


def test_a_retry_that_would_come_too_late_is_not_scheduled_and_the_error_stays() -> None:
    job = with_deadline(deadline="30s", retry=Retry(attempts=9, wait="40s", jitter=0))

    assert job.fail_once() == ["SubStepFailed", "PhaseFailed", "JobFailed"]
    assert job.state["error"] is not None
    assert job.state["error"]["type"] == "ConnectionError"


def test_a_wait_whose_signal_is_there_when_its_deadline_comes_takes_it() -> None:
    """Failing, it would take the signal away all the same, and whoever resumed it would wait for another one."""
    wf: Workflow[Any, Any] = Workflow("late")
    options: dict[str, Any] = {"deadline": "4s"}
    wf.wait_for_signal("go", str, **options)
    job = LateJob(wf)
    late = later(job.begun_at("go"), 4.0)
    evolution = Evolution(job.state)
    evolution.foresee(SignalReceived(name="go", payload="now", signal_id="s1"), job.now())
    job.state = evolution.state
    job.state["phases"]["main"]["sub_steps"]["go"]["deadline_at"] = late  # as from when somebody has resumed the job

    assert job.decide_at(late) == ["SubStepCompleted", "PhaseCompleted", "JobCompleted"]
    assert job.state["signals"] == {}


def test_a_job_that_has_had_its_time_fails_once_what_ran_has_ended() -> None:
    job = job_with_deadline("1h")
    late = later(job.state["created_at"], 3600.0)
    job.die()

    assert next_due(job.state, job.state["recorded_at"]) == late
    assert job.decide_at(late) == []
    assert job.decide_at(late, fact.Interrupted("cancelled", "w")) == ["SubStepInterrupted", "PhaseFailed", "JobFailed"]
    assert job.state["error"] is not None
    assert job.state["error"]["message"] == "the job did not end within its deadline of 3600 s"


def test_nothing_new_starts_in_a_job_that_has_had_its_time() -> None:
    wf: Workflow[Any, Any] = Workflow("late", deadline="1h")
    first = wf.sub_step(name="first")(lambda: None)
    wf.sub_step(name="second", after=[first])(lambda: None)
    job = LateJob(wf)
    late = later(job.state["created_at"], 3600.0)

    done = fact.Completed(AttemptId("main", "first", 1, 1), None, {}, 1.0)
    assert job.decide_at(late, done) == ["SubStepCompleted", "PhaseFailed", "JobFailed"]


def test_a_job_that_ends_with_its_last_sub_step_is_not_late() -> None:
    job = job_with_deadline("1h")
    done = fact.Completed(AttemptId("main", "work", 1, 1), None, {}, 1.0)

    events = job.decide_at(later(job.state["created_at"], 3600.0), done)

    assert events == ["SubStepCompleted", "PhaseCompleted", "JobCompleted"]


@pytest.mark.parametrize("whole_job", [True, False], ids=["job", "sub-step"])
def test_a_person_who_resumes_what_was_late_gives_it_its_time_again(whole_job: bool) -> None:
    job = job_with_deadline("1h") if whole_job else with_deadline(deadline="1h")
    late = later(job.state["recorded_at"], 4000.0)
    job.decide_at(late)
    if whole_job:
        job.decide_at(late, fact.Interrupted("cancelled", "w"))
    assert job.state["status"] == "failed"

    job.resume()
    assert names(job.decide()) == ["SubStepStarted"]
    assert job.decide_at(later(late, 3000.0)) == []


def test_a_handler_that_runs_when_its_deadline_comes_is_told_to_stop(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("late")
    pause = threading.Event()

    @wf.sub_step(deadline="50ms", optional=True)
    def slow(step: Step) -> str:
        while not step.cancelled:
            pause.wait(0.005)
        stopped.set()
        return "too late"

    @wf.sub_step
    def beside() -> bool:
        return stopped.wait(DONE_S_MAX)

    stopped = threading.Event()
    job = run_blocking(wf, store=store, settings=QUICK)

    failed = job.snapshot["phases"]["main"]["sub_steps"]["slow"]
    assert (job.status, job.result(beside), failed["status"]) == ("completed", True, "failed")
    assert failed["error"]["type"] == "DeadlineExceeded"


@pytest.mark.parametrize("waits", ["for a signal", "in a handler"])
def test_a_job_fails_at_its_deadline_and_can_be_resumed(store: Store, waits: str) -> None:
    wf: Workflow[Any, Any] = Workflow("late", deadline="300ms")
    goes_on: list[int] = []

    if waits == "for a signal":
        wf.wait_for_signal("go", str, timeout="500ms", default="nobody")
    else:

        @wf.sub_step(name="waits")
        async def waits_in_a_handler() -> None:
            if not goes_on:
                await asyncio.sleep(DONE_S_MAX)

    job = run_blocking(wf, store=store, settings=QUICK)
    assert (job.status, job.snapshot["error"]["type"]) == ("failed", "DeadlineExceeded")

    goes_on.append(1)
    assert resume_blocking(wf, job.job_id, store, by="anna").status == "completed"


def test_deadlines_are_part_of_the_plan_and_do_not_stop_other_code_from_running_it() -> None:
    wf: Workflow[Any, Any] = Workflow("late", deadline="1h")
    wf.sub_step(name="work", deadline="1m")(lambda: None)
    other: Workflow[Any, Any] = Workflow("late")
    other.sub_step(name="work")(lambda: None)

    plan = plan_of(wf)
    assert (plan.get("deadline_s"), plan["phases"][0]["sub_steps"][0].get("deadline_s")) == (3600.0, 60.0)
    assert differences(plan, plan_of(other)) == []
    with pytest.raises(DefinitionError):
        Workflow("late", deadline="tomorrow")
