"""What people ask of a job while it runs: its owner hears of it within a heartbeat and does it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from steplog import Cancelled, JobHandle, Retry, Settings, Step, Transaction, Workflow
from steplog.engine import operators
from steplog.engine.history import load
from steplog.engine.jobs import prepare, recorded_input, resume_blocking, run_here
from steplog.engine.worker import Worker
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
    assert lines[-1] == "(1002 more lines were dropped: an attempt keeps 1000 lines of 65536 characters in all)"
    assert types(store, job.job_id)[-4:] == ["SubStepLogged", "SubStepFailed", "PhaseFailed", "JobFailed"]


@pytest.mark.parametrize("is_async", [True, False])
def test_what_was_logged_is_recorded_while_the_handler_goes_on_and_says_nothing(store: Store, is_async: bool) -> None:
    wf = Workflow("logs")

    def is_told(step: Step) -> bool:
        return any(
            "second" in event.data["lines"] for event in store.read(step.job_id) if event.type == "SubStepLogged"
        )

    def talks(step: Step) -> None:
        step.log("first")
        step.log("second")
        for _ in range(DONE_S_MAX * 50):
            if is_told(step):
                return
            pause.wait(0.02)
        raise TimeoutError

    async def talks_on_the_loop(step: Step) -> None:
        await asyncio.to_thread(talks, step)

    pause = threading.Event()
    handler: Any = talks_on_the_loop if is_async else talks
    wf.sub_step(name="talks")(handler)
    assert wf.run(store=store).status == "completed"


def test_what_a_timed_out_attempt_said_is_recorded_before_its_failure(store: Store) -> None:
    wf = Workflow("logs")

    @wf.sub_step(timeout="100ms")
    async def hangs(step: Step) -> None:
        step.log("first")
        step.log("second")
        step.progress(1)
        await asyncio.sleep(DONE_S_MAX)

    job = wf.run(store=store)

    told = [line for event in store.read(job.job_id) if event.type == "SubStepLogged" for line in event.data["lines"]]
    assert told == ["first", "second"]
    assert types(store, job.job_id)[-5:] == [
        "SubStepLogged",
        "SubStepProgressed",
        "SubStepFailed",
        "PhaseFailed",
        "JobFailed",
    ]


def test_what_a_transactional_handler_said_is_committed_with_it(store: Store) -> None:
    wf = Workflow("logs")

    @wf.sub_step
    def writes(step: Step, tx: Transaction) -> None:
        step.log("first")
        step.log("second")

    job = wf.run(store=store)

    told = [line for event in store.read(job.job_id) if event.type == "SubStepLogged" for line in event.data["lines"]]
    assert (job.status, told) == ("completed", ["first", "second"])


def test_a_handler_that_says_that_it_stops_half_way_is_not_waited_for(store: Store) -> None:
    """The grace period is longer than the test: only a job that is handed back before it is over lets this pass."""
    wf = Workflow("stops")
    patient = Settings(grace_s=1_000.0)
    ready = threading.Event()

    @wf.sub_step
    def stops(step: Step) -> None:
        ready.set()
        while True:
            step.raise_if_cancelled()
            threading.Event().wait(0.01)

    async def stopped() -> State:
        with Worker(store, settings=patient) as worker:
            owned, new_job = prepare(worker, wf, recorded_input(wf, None), None)
            store.create(new_job)
            running = asyncio.ensure_future(worker.run(owned))
            assert await asyncio.to_thread(ready.wait, DONE_S_MAX)
            worker.stop(15)
            return await asyncio.wait_for(running, DONE_S_MAX)

    state = asyncio.run(stopped())

    assert (state["status"], state["phases"]["main"]["sub_steps"]["stops"]["status"]) == ("queued", "interrupted")


@pytest.mark.parametrize("timeout", [None, "1h"], ids=["without timeout", "with timeout"])
def test_a_sub_step_reset_while_its_handler_does_not_end_waits_for_it(store: Store, timeout: str | None) -> None:
    wf, ready, go_on = Workflow("obeys"), threading.Event(), threading.Event()
    running: list[int] = []
    at_once: list[int] = []

    @wf.sub_step(timeout=timeout)
    async def stubborn(step: Step) -> int:
        running.append(step.generation)
        at_once.append(len(running))
        ready.set()
        while step.generation == 1 and not go_on.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                told.set()
        running.remove(step.generation)
        return step.generation

    @wf.sub_step
    def beside(step: Step) -> None:
        """What could start has started when a checkpoint that was reached after it could is durable."""
        assert told.wait(DONE_S_MAX)
        step.checkpoint(1)
        step.checkpoint(2)
        go_on.set()

    def reset(job_id: str) -> None:
        operators.fail(store, job_id, "stubborn", by="anna")
        operators.reset(store, job_id, "stubborn", by="anna")

    told = threading.Event()
    job = run_and(wf, store, ready, reset)

    assert (job.status, job.result(stubborn), at_once) == ("completed", 2, [1, 1])


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
