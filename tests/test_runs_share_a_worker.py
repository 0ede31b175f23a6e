"""Runs awaited together on one store share a worker, and with it the writer that gathers their appends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steplog import JobHandle, OwnershipLost, Settings, Step, Workflow, open_store
from steplog.engine.jobs import run_here
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery, Store
from steplog.testing.memory import MemoryStore

TWO_JOBS = """
import asyncio, sys
from steplog import Interrupted, Workflow

wf = Workflow("long")
running = []

@wf.sub_step
async def slow() -> None:
    running.append(1)
    if len(running) == 2:
        print("both run", flush=True)
    await asyncio.sleep(60)

async def main() -> None:
    url = "sqlite:///" + sys.argv[1]
    ended = await asyncio.gather(wf.arun(store=url), wf.arun(store=url), return_exceptions=True)
    assert [type(each) for each in ended] == [Interrupted, Interrupted], ended

asyncio.run(main())
"""

FORKS = """
import os, signal, sys
from steplog import Workflow

wf = Workflow("forks")

@wf.sub_step
def fork_and_end() -> int:
    said, says = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(says, b"here")
        signal.pause()
        os._exit(0)
    os.read(said, 4)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

job = wf.run(store="sqlite:///" + sys.argv[1])
print(job.status, job.result(fork_and_end))
"""


class Gate:
    """A workflow whose jobs wait inside their only sub-step."""

    def __init__(self) -> None:
        self.inside = asyncio.Semaphore(0)
        self.leave = asyncio.Event()
        self.workflow: Workflow[Any, Any] = Workflow("gate")

        @self.workflow.sub_step
        async def wait() -> str:
            self.inside.release()
            await self.leave.wait()
            return "done"

    def start(self, store: Store | str, **options: Any) -> asyncio.Task[JobHandle[Any]]:
        return asyncio.create_task(run_here(self.workflow, store=store, **options))


def owners(store: Store) -> set[str | None]:
    return {head.worker_id for head in store.heads(HeadQuery())}


def test_jobs_run_together_have_one_owner_and_it_retires_after_the_last(store: Store) -> None:
    async def scenario() -> None:
        gate = Gate()
        runs = [gate.start(store) for _ in range(5)]
        for _ in runs:
            await gate.inside.acquire()
        assert len(owners(store)) == 1
        gate.leave.set()
        assert {(await run).status for run in runs} == {"completed"}

    asyncio.run(scenario())

    assert [worker.state for worker in store.workers()] == ["stopped"]


def test_a_job_that_comes_later_joins_the_worker_and_one_that_comes_after_gets_its_own(store: Store) -> None:
    async def scenario() -> None:
        gate = Gate()
        first = gate.start(store)
        await gate.inside.acquire()
        second = gate.start(store)
        await gate.inside.acquire()
        assert len(store.workers()) == 1
        gate.leave.set()
        await asyncio.gather(first, second)
        await gate.start(store)

    asyncio.run(scenario())

    assert len(store.workers()) == 2


def test_a_run_that_broke_off_leaves_a_worker_that_takes_no_more(store: Store) -> None:
    def announce(job_id: str) -> None:
        raise RuntimeError("the caller broke off")

    async def scenario() -> None:
        gate = Gate()
        running = gate.start(store)
        await gate.inside.acquire()
        with pytest.raises(RuntimeError):
            await gate.start(store, announce=announce)
        later = gate.start(store)
        await gate.inside.acquire()
        gate.leave.set()
        await asyncio.gather(running, later)

    asyncio.run(scenario())

    assert [worker.state for worker in store.workers()] == ["stopped", "stopped"]


def test_jobs_with_other_settings_have_a_worker_of_their_own(store: Store) -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.leave.set()
        await asyncio.gather(gate.start(store), gate.start(store, settings=Settings(lease_s=60)))

    asyncio.run(scenario())

    assert len(store.workers()) == 2


def test_jobs_on_one_url_share_a_store_that_is_closed_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Store] = []

    def opening(url: str) -> Store:
        opened.append(open_store(url))
        return opened[-1]

    monkeypatch.setattr("steplog.engine.shared.open_store", opening)

    async def scenario() -> None:
        gate = Gate()
        gate.leave.set()
        await asyncio.gather(*(gate.start(f"sqlite:///{tmp_path}/log.db") for _ in range(3)))

    asyncio.run(scenario())

    (store,) = opened
    with pytest.raises(Exception, match="closed"):
        store.workers()


def test_cancelling_one_run_hands_its_job_back_and_leaves_the_others(store: Store) -> None:
    async def scenario() -> None:
        gate = Gate()
        runs = [gate.start(store) for _ in range(3)]
        for _ in runs:
            await gate.inside.acquire()
        runs[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await runs[0]
        gate.leave.set()
        await asyncio.gather(*runs[1:])

    asyncio.run(scenario())

    assert sorted(head.columns.status for head in store.heads(HeadQuery())) == ["completed", "completed", "queued"]


def test_who_comes_after_the_worker_was_declared_dead_gets_a_living_one(store: Store) -> None:
    async def scenario() -> None:
        gate = Gate()
        lost = gate.start(store, settings=Settings(heartbeat_s=0.02))
        await gate.inside.acquire()
        (worker,) = store.workers()
        store.retire_worker(worker.identity.worker_id)
        while not lost.done():
            later = gate.start(store, settings=Settings(heartbeat_s=0.02))
            await asyncio.wait({lost, later}, timeout=0.02)
            later.cancel()
            await asyncio.wait({later})
        gate.leave.set()
        with pytest.raises(OwnershipLost):
            await lost
        assert (await gate.start(store, settings=Settings(heartbeat_s=0.02))).status == "completed"

    asyncio.run(scenario())


def test_a_store_that_cannot_be_opened_fails_every_run_and_the_next_tries_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/missing/log.db"

    async def scenario() -> list[Any]:
        gate = Gate()
        gate.leave.set()
        failed = await asyncio.gather(gate.start(url), gate.start(url), return_exceptions=True)
        (tmp_path / "missing").mkdir()
        return [*failed, await gate.start(url)]

    *failed, job = asyncio.run(scenario())

    assert all(isinstance(each, Exception) for each in failed)
    assert job.status == "completed"


def test_a_signal_that_the_host_listens_to_is_left_to_it() -> None:
    async def scenario() -> str:
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[str] = asyncio.Queue()
        loop.add_signal_handler(signal.SIGTERM, heard.put_nowait, "heard")
        gate = Gate()
        run = gate.start(MemoryStore())
        await gate.inside.acquire()
        signal.raise_signal(signal.SIGTERM)
        await heard.get()
        gate.leave.set()
        status = (await run).status
        signal.raise_signal(signal.SIGTERM)
        await heard.get()
        loop.remove_signal_handler(signal.SIGTERM)
        return status

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == "completed"


def test_signals_do_after_a_run_what_they_did_before() -> None:
    wf = Workflow("quick")
    wf.sub_step(name="only")(lambda: None)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    wf.run(store=MemoryStore())

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_hands_every_job_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWO_JOBS, str(tmp_path / "log.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "both run\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0

    store = SQLiteStore(tmp_path / "log.db")
    assert [head.columns.status for head in store.heads(HeadQuery())] == ["queued", "queued"]
    store.close()


def test_a_signal_to_a_process_that_a_handler_forked_ends_that_and_not_the_job(tmp_path: Path) -> None:
    """It has the socket through which signals wake the loop: what multiprocessing's pools do to their processes."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path / "log.db")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout == f"completed {-signal.SIGTERM}\n"


def test_a_job_is_handed_back_only_when_its_cancelled_handlers_have_cleaned_up(store: Store) -> None:
    wf = Workflow("cleans up")
    told: list[str] = []

    async def scenario() -> None:
        reached = asyncio.Event()

        @wf.sub_step
        async def slow(step: Step) -> None:
            reached.set()
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                told.append(store.head(step.job_id).columns.status)

        running = asyncio.create_task(wf.arun(store=store))
        await reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())

    (head,) = store.heads(HeadQuery())
    assert (told, head.columns.status) == (["running"], "queued")
