"""Who may run a job: nobody while its owner lives, anybody at once when its owner is certainly dead."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from witness import run_to_the_end, run_until_killed
from witness_process import KillPoint, Place

from steplog import OwnershipLost, Retry, Settings, Step, Workflow
from steplog.engine.history import load
from steplog.engine.jobs import prepare, recorded_input, resume_blocking, run_blocking
from steplog.engine.worker import Worker
from steplog.eventstore.errors import JobOwned, StoreUnavailable, WrongState
from steplog.eventstore.events import EventData, SubStepStarted
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery, Store
from steplog.projections.state import State

HANDED_BACK = """
import sys, time
from steplog import Step, Workflow

wf = Workflow("handed back")

@wf.sub_step
async def quick() -> int:
    return 1

@wf.sub_step
def slow(step: Step) -> None:
    print(step.job_id, flush=True)
    while not step.cancelled:
        time.sleep(0.01)
        step.checkpoint({"still": "here"})
    step.checkpoint({"asked to": "stop"})
    if "ignore" in sys.argv:
        print("told to stop", flush=True)
        time.sleep(60)

from steplog.engine.jobs import run_blocking
from steplog import Interrupted
try:
    run_blocking(wf, store="sqlite:///" + sys.argv[1])
except Interrupted as error:
    sys.exit(100 + error.signal_number)
"""


def blocked_workflow(release: threading.Event, reached: threading.Event) -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("blocked")

    @wf.sub_step
    def wait() -> str:
        reached.set()
        release.wait(30)
        return "done"

    return wf


def test_a_job_whose_owner_lives_is_refused_with_who_owns_it(store: Store) -> None:
    release, reached = threading.Event(), threading.Event()
    wf = blocked_workflow(release, reached)
    ended: list[str] = []
    running = threading.Thread(target=lambda: ended.append(wf.run(store=store).status))
    running.start()
    reached.wait(30)
    (head,) = store.heads(HeadQuery())

    with pytest.raises(JobOwned) as refused:
        resume_blocking(wf, head.job_id, store, by="anna")
    release.set()
    running.join()

    assert (refused.value.worker_id, ended) == (head.worker_id, ["completed"])
    assert [event.type for event in store.read(head.job_id)].count("JobClaimed") == 1


def test_a_job_whose_owner_was_killed_is_taken_over_at_once(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path)
    assert run_until_killed(place, KillPoint("effect", 3))
    started = time.monotonic()
    run_to_the_end(place)

    assert time.monotonic() - started < Settings().lease_s
    opened = place.open()
    (job_id,) = opened.job_of_key(None, "the-job")
    claims = [event.data["reason"] for event in opened.read(job_id) if event.type == "JobClaimed"]
    opened.close()
    assert claims == ["first", "takeover"]


def test_an_owner_that_was_fenced_stops_and_nothing_of_it_enters_the_log(store: Store) -> None:
    release, reached = threading.Event(), threading.Event()
    wf = blocked_workflow(release, reached)
    lost: list[BaseException] = []

    def run() -> None:
        try:
            wf.run(store=store)
        except OwnershipLost as error:
            lost.append(error)

    running = threading.Thread(target=run)
    running.start()
    reached.wait(30)
    (head,) = store.heads(HeadQuery())
    assert head.worker_id is not None
    store.retire_worker(head.worker_id)
    with Worker(store) as other:
        other.claim(head.job_id, wf)
        version = store.head(head.job_id).version
        release.set()
        running.join()

        assert len(lost) == 1
        assert store.head(head.job_id).version == version


def test_a_worker_that_was_declared_dead_stops_within_a_heartbeat(store: Store) -> None:
    release, reached = threading.Event(), threading.Event()
    wf = blocked_workflow(release, reached)
    lost: list[BaseException] = []

    def run() -> None:
        try:
            run_blocking(wf, store=store, settings=Settings(heartbeat_s=0.02))
        except OwnershipLost as error:
            lost.append(error)

    running = threading.Thread(target=run)
    running.start()
    reached.wait(30)
    (head,) = store.heads(HeadQuery())
    assert head.worker_id is not None
    store.retire_worker(head.worker_id)
    running.join(10)
    release.set()

    assert not running.is_alive()
    assert [type(error) for error in lost] == [OwnershipLost]


def test_a_worker_that_cannot_write_at_its_end_ends_and_its_job_can_be_taken_over(
    sqlite_store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf = Workflow("full disk")
    wf.sub_step(name="work")(lambda: None)

    def refuse(*row: Any) -> None:
        raise StoreUnavailable("the disk is full")

    with Worker(sqlite_store) as worker:
        job_id = sqlite_store.create(prepare(worker, wf, recorded_input(wf, None), None)[1])
        monkeypatch.setattr("steplog.eventstore.sqlite_tables.end_worker", refuse)
    monkeypatch.undo()

    assert resume_blocking(wf, job_id, sqlite_store, by="anna").status == "completed"


def test_a_worker_that_cannot_be_registered_leaves_no_thread(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*row: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(store, "register_worker", refuse)
    worker = Worker(store)
    with pytest.raises(StoreUnavailable):
        worker.__enter__()

    assert not worker.writer._thread.is_alive()


def test_an_ended_job_is_not_run_again(store: Store) -> None:
    wf = Workflow("ended")
    wf.sub_step(name="only")(lambda: 1)
    job = wf.run(store=store)

    with pytest.raises(WrongState, match="completed"):
        resume_blocking(wf, job.job_id, store, by="anna")


def test_a_sub_step_whose_owners_keep_dying_parks_the_job_and_a_person_resumes_it(store: Store) -> None:
    wf = Workflow("crash loop")
    ran: list[int] = []

    @wf.sub_step
    def deadly(step: Step) -> None:
        ran.append(step.attempt)

    job_id = abandoned_job(store, wf)
    for _ in range(2):
        abandon(store, wf, job_id)

    parked = resume_blocking(wf, job_id, store, by="anna")
    resumed = resume_blocking(wf, job_id, store, by="anna")

    assert (parked.status, "crash loop" in parked.snapshot["reason"]) == ("parked", True)
    assert (resumed.status, ran) == ("completed", [4])


def abandoned_job(store: Store, wf: Workflow[Any, Any]) -> str:
    """A job whose only sub-step was started by an owner that then died."""
    return asyncio.run(_start_and_die(store, wf, None))


def abandon(store: Store, wf: Workflow[Any, Any], job_id: str) -> None:
    """Take it over, start it again, die again."""
    asyncio.run(_start_and_die(store, wf, job_id))


async def _start_and_die(store: Store, wf: Workflow[Any, Any], job_id: str | None) -> str:
    with Worker(store) as worker:
        if job_id is None:
            owned, new_job = prepare(worker, wf, recorded_input(wf, None), None)
            job_id = store.create(new_job)
        else:
            owned = worker.claim(job_id, wf)
        runner = worker.runner(owned)

        def die_before_the_handler(events: Sequence[EventData], state: State) -> None:
            if any(isinstance(event, SubStepStarted) for event in events):
                runner.lose_from_thread("died")

        runner._start = die_before_the_handler  # type: ignore[method-assign]  # where it would be called
        with pytest.raises(OwnershipLost):
            await runner.run()
    return job_id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_settle_and_hands_the_job_back(tmp_path: Path, number: int) -> None:
    with started_process(tmp_path) as (process, job_id):
        process.send_signal(number)

        assert process.wait(30) == 100 + number
    state = state_of(tmp_path, job_id)
    assert (state["status"], state["phases"]["main"]["sub_steps"]["slow"]["status"]) == ("queued", "completed")


def test_a_second_signal_hands_the_job_back_at_once_and_says_interrupted(tmp_path: Path) -> None:
    with started_process(tmp_path, "ignore") as (process, job_id):
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "told to stop\n"
        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == 100 + signal.SIGTERM
    state = state_of(tmp_path, job_id)
    slow = state["phases"]["main"]["sub_steps"]["slow"]
    assert (state["status"], slow["status"], slow["reason"]) == ("queued", "interrupted", "handed back")
    assert slow["interruptions"] == 0


@contextmanager
def started_process(tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker process inside its slow sub-step, and the id of its job."""
    command = [sys.executable, "-c", HANDED_BACK, str(tmp_path / "log.db"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def state_of(tmp_path: Path, job_id: str) -> Any:
    store = SQLiteStore(tmp_path / "log.db")
    try:
        return load(store, job_id).state
    finally:
        store.close()


def test_retries_that_wait_survive_the_worker_with_count_and_due_time(store: Store) -> None:
    wf = Workflow("budget")
    ran: list[int] = []

    @wf.sub_step(retry=Retry(attempts=2, wait="150ms", jitter=0))
    def flaky(step: Step) -> None:
        ran.append(step.attempt)
        raise ConnectionError

    moment = threading.Event()

    def run() -> None:
        with pytest.raises(OwnershipLost):
            wf.run(store=store)

    running = threading.Thread(target=run)
    running.start()
    while not ran:
        assert running.is_alive()
        moment.wait(0.005)
    (head,) = store.heads(HeadQuery())
    while "SubStepRetryScheduled" not in [event.type for event in store.read(head.job_id)]:
        assert running.is_alive()
        moment.wait(0.005)
    assert head.worker_id is not None
    store.retire_worker(head.worker_id)
    job = resume_blocking(wf, head.job_id, store, by="anna")
    running.join()

    events = list(store.read(head.job_id))
    (due,) = [event.data["retry_at"] for event in events if event.type == "SubStepRetryScheduled"]
    started = [event.recorded_at for event in events if event.type == "SubStepStarted"]
    assert (job.status, ran) == ("failed", [1, 2])
    assert started[1] >= due
