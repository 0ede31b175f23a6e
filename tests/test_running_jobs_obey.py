"""What people ask of a job while it runs: its owner hears of it within a heartbeat and does it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from steplog import Cancelled, JobHandle, Retry, Settings, Step, Workflow
from steplog.engine import operators
from steplog.engine.history import load
from steplog.engine.jobs import resume_blocking, run_here
from steplog.eventstore.store import HeadQuery, Store
from steplog.projections.state import State

QUICK = Settings(heartbeat_s=0.05, grace_s=5.0)
DONE_S_MAX = 15


def state_of(store: Store, job: JobHandle[Any]) -> State:
    return load(store, job.job_id).state


def types(store: Store, job_id: str) -> list[str]:
    return [event.type for event in store.read(job_id)]


def run_and(wf: Workflow[Any, Any], store: Store, ready: threading.Event, act: Callable[[str], Any]) -> Any:
    """Run the workflow, do something to its job once it is ready, and wait for its end."""

    async def both() -> Any:
        running: Awaitable[Any] = asyncio.ensure_future(run_here(wf, store=store, settings=QUICK))
        assert await asyncio.to_thread(ready.wait, DONE_S_MAX)
        job_id = store.heads(HeadQuery(limit=1))[0].job_id
        await asyncio.to_thread(act, job_id)
        return await asyncio.wait_for(running, DONE_S_MAX)

    return asyncio.run(both())


def test_a_paused_job_starts_nothing_new_and_pauses_once_what_runs_has_settled(store: Store) -> None:
    wf, ready, go_on = Workflow("obeys"), threading.Event(), threading.Event()

    @wf.sub_step
    def first() -> str:
        ready.set()
        assert go_on.wait(DONE_S_MAX)
        return "done"

    @wf.sub_step(after=[first])
    def second() -> None: ...

    def pause(job_id: str) -> None:
        operators.pause(store, job_id, by="anna", reason="lunch")
        go_on.set()

    job = run_and(wf, store, ready, pause)

    assert job.status == "paused"
    assert types(store, job.job_id)[-3:] == ["JobPauseRequested", "SubStepCompleted", "JobPaused"]
    paused = list(store.read(job.job_id))[-1]
    assert (paused.data["by"], paused.data["reason"]) == ("anna", "lunch")
    assert resume_blocking(wf, job.job_id, store, by="anna").status == "completed"
    assert types(store, job.job_id).count("SubStepStarted") == 2


def test_a_cancelled_job_cancels_its_handlers_and_ends(store: Store) -> None:
    wf, ready = Workflow("obeys"), threading.Event()
    told: list[str] = []

    @wf.sub_step
    async def waits() -> None:
        try:
            ready.set()
            await asyncio.sleep(DONE_S_MAX)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    @wf.sub_step
    def looks(step: Step) -> None:
        while True:
            step.raise_if_cancelled()
            told_or_not.wait(0.01)

    told_or_not = threading.Event()
    job = run_and(wf, store, ready, lambda job_id: operators.cancel(store, job_id, by="anna"))

    assert (job.status, told) == ("cancelled", ["cancelled"])
    assert types(store, job.job_id)[-3:] == ["SubStepInterrupted", "SubStepInterrupted", "JobCancelled"]
    assert [event.data["cause"] for event in store.read(job.job_id) if event.type == "SubStepInterrupted"] == [
        "cancelled",
        "cancelled",
    ]


def test_what_completes_while_its_job_is_cancelled_is_recorded(store: Store) -> None:
    wf, ready = Workflow("obeys"), threading.Event()

    @wf.sub_step
    def finishes(step: Step) -> str:
        ready.set()
        while not step.cancelled:
            pause.wait(0.01)
        return "in time"

    pause = threading.Event()
    job = run_and(wf, store, ready, lambda job_id: operators.cancel(store, job_id, by="anna"))

    assert types(store, job.job_id)[-2:] == ["SubStepCompleted", "JobCancelled"]


def test_a_sub_step_completed_by_hand_while_it_runs_is_stopped_and_what_it_says_comes_late(store: Store) -> None:
    wf, ready = Workflow("obeys"), threading.Event()

    @wf.sub_step
    def slow(step: Step) -> str:
        ready.set()
        for _ in range(1_000):
            if step.cancelled:
                return "by the handler"
            pause.wait(0.01)
        return "never told"

    @wf.sub_step(after=[slow])
    def last() -> None:
        """Ends after the late outcome, which the job would not wait for."""
        assert late.wait(DONE_S_MAX)

    pause, late = threading.Event(), threading.Event()

    def complete(job_id: str) -> None:
        operators.complete(store, job_id, "slow", "by hand", by="anna")
        deadline = time.monotonic() + DONE_S_MAX
        while "LateOutcome" not in types(store, job_id):
            assert time.monotonic() < deadline, "the handler was not stopped"
            pause.wait(0.01)
        late.set()

    job = run_and(wf, store, ready, complete)

    assert (job.status, job.result(slow)) == ("completed", "by hand")
    (outcome,) = (event for event in store.read(job.job_id) if event.type == "LateOutcome")
    assert outcome.data["result"] == "by the handler"


def test_an_attempt_in_back_off_that_is_retried_by_hand_runs_now(store: Store) -> None:
    wf, ready = Workflow("obeys"), threading.Event()
    calls: list[int] = []

    @wf.sub_step(retry=Retry(attempts=2, wait="1h"))
    def flaky() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError

    @wf.sub_step(after=[])
    def beside() -> None:
        ready.set()

    def retry(job_id: str) -> None:
        while "SubStepRetryScheduled" not in types(store, job_id):
            threading.Event().wait(0.01)
        operators.retry(store, job_id, "flaky", by="anna")

    assert run_and(wf, store, ready, retry).status == "completed"


def test_a_handler_may_raise_cancelled_only_where_it_was_asked_to_stop(store: Store) -> None:
    wf = Workflow("obeys")

    @wf.sub_step
    def eager() -> None:
        raise Cancelled

    job = wf.run(store=store)
    assert (job.status, (state_of(store, job)["error"] or {})["type"]) == ("failed", "Cancelled")


def test_lines_are_kept_with_an_attempt_that_fails(store: Store) -> None:
    wf = Workflow("logs")

    @wf.sub_step
    def talks(step: Step) -> None:
        step.log("first", "sec\x00ond")
        step.log(*(f"line {number}" for number in range(2_000)))
        raise ValueError("no")

    job = wf.run(store=store)
    lines = [line for event in store.read(job.job_id) if event.type == "SubStepLogged" for line in event.data["lines"]]
    assert lines[:2] == ["first", "sec\\u0000ond"]
    assert len(lines) == 1_001
    assert lines[-1] == "(1002 more lines were dropped: an attempt keeps 1000)"
    assert types(store, job.job_id)[-4:] == ["SubStepLogged", "SubStepFailed", "PhaseFailed", "JobFailed"]


def test_a_job_cancelled_before_it_runs_on_does_nothing_more(store: Store) -> None:
    wf = Workflow("obeys")
    ran: list[str] = []

    @wf.sub_step
    def fails() -> None:
        ran.append("fails")
        raise ValueError

    job = wf.run(store=store)
    operators.cancel(store, job.job_id, by="anna", reason="enough")
    assert types(store, job.job_id)[-2:] == ["JobCancelRequested", "JobCancelled"]
    assert ran == ["fails"]
