"""Workers of a fleet: what is due is claimed once and run, what cannot be run is left alone, nothing stays stuck."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from steplog import Settings, Step, Workflow, arun_worker, run_worker
from steplog.engine import operators
from steplog.engine.history import load
from steplog.engine.jobs import prepare, recorded_input
from steplog.engine.serving import Serving
from steplog.engine.worker import Worker
from steplog.eventstore.errors import StoreUnavailable, WorkerDead
from steplog.eventstore.store import Head, Store, Work, WorkQuery

FAST = Settings(poll_s=0.02, poll_s_max=0.05, heartbeat_s=0.05, release_after_s=0.0)


def quick(name: str = "quick", ran: list[str] | None = None) -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow(name)

    @wf.sub_step
    def work(step: Step) -> None:
        (ran if ran is not None else []).append(step.job_id)

    return wf


def types_of(store: Store, job_id: str) -> list[str]:
    return [event.type for event in store.read(job_id)]


def status(store: Store, job_id: str) -> str:
    return store.head(job_id).columns.status


async def until(said: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for what another thread or task brings about."""
    moment = threading.Event()
    async with asyncio.timeout(timeout_s):
        while not said():
            await asyncio.to_thread(moment.wait, 0.005)


def beside_a_worker(store: Store, *workflows: Workflow[Any, Any], script: Callable[[], Awaitable[None]]) -> None:
    """Run the script while a worker serves; then hand back."""

    async def main() -> None:
        working = asyncio.create_task(arun_worker(*workflows, store=store, settings=FAST))
        await script()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(main())


def test_due_jobs_are_run_once_each_and_then_a_worker_of_one_shot_ends(store: Store) -> None:
    ran: list[str] = []
    wf = quick(ran=ran)
    jobs = wf.submit_many([None] * 25, store=store).job_ids
    run_worker(wf, store=store, concurrency=4, one_shot=True, settings=FAST)
    assert sorted(ran) == sorted(jobs)
    assert {status(store, job_id) for job_id in jobs} == {"completed"}
    assert types_of(store, jobs[0]).count("JobClaimed") == 1


def test_higher_priorities_run_first_and_workflows_take_turns(store: Store) -> None:
    ran: list[str] = []
    first, second = quick("first", ran), quick("second", ran)
    of_first = [first.submit(store=store) for _ in range(4)]
    urgent = first.submit(store=store, priority=1)
    of_second = second.submit(store=store)
    run_worker(first, second, store=store, concurrency=1, one_shot=True, settings=FAST)
    assert ran.index(urgent) < min(ran.index(job_id) for job_id in of_first)
    assert ran.index(of_second) <= 1


def test_a_worker_runs_only_workflows_that_it_has(store: Store) -> None:
    other = quick("other").submit(store=store)
    run_worker(quick(), store=store, one_shot=True, settings=FAST)
    assert types_of(store, other) == ["JobCreated"]


def test_a_job_of_another_plan_is_left_untouched_and_others_run(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    older: Workflow[Any, Any] = Workflow("quick")
    older.sub_step(name="gone")(lambda: None)
    refused = [older.submit(store=store, priority=9) for _ in range(3)]
    wf = quick()
    mine = wf.submit(store=store)
    run_worker(wf, store=store, concurrency=1, one_shot=True, settings=FAST)
    assert status(store, mine) == "completed"
    assert {tuple(types_of(store, job_id)) for job_id in refused} == {("JobCreated",)}
    said = [record for record in caplog.records if "left to other workers" in record.message]
    assert len(said) == 3


def test_jobs_of_a_worker_that_ended_are_taken_over(store: Store) -> None:
    wf = quick()
    with Worker(store) as worker:
        owned, new_job = prepare(worker, wf, recorded_input(wf, None), None)
        job_id = store.create(new_job)
    run_worker(wf, store=store, one_shot=True, settings=FAST)
    claims = [event.data["reason"] for event in store.read(job_id) if event.type == "JobClaimed"]
    assert (status(store, job_id), claims) == ("completed", ["first", "takeover"])
    assert owned.claim.epoch == 1


def test_a_job_that_only_waits_is_given_back_and_woken_by_its_time(store: Store) -> None:
    wf = quick()
    wf.sleep("300ms", name="rest", after=[wf.sub_steps["main/work"]])
    job_id = wf.submit(store=store)

    async def script() -> None:
        await until(lambda: status(store, job_id) == "completed")

    beside_a_worker(store, wf, script=script)
    released = [event.data for event in store.read(job_id) if event.type == "JobReleased"]
    claims = [event.data["reason"] for event in store.read(job_id) if event.type == "JobClaimed"]
    (waiting,) = [event.data["until"] for event in store.read(job_id) if event.type == "SubStepWaiting"]
    assert released == [{"reason": "waits", "wake_at": waiting}]
    assert claims == ["first", "wake"]


def test_a_job_that_waits_for_a_signal_holds_nothing_and_the_signal_wakes_it(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("approval")
    wf.wait_for_signal("approved", str)
    job_id = wf.submit(store=store)

    async def script() -> None:
        await until(lambda: status(store, job_id) == "waiting")
        head = store.head(job_id)
        assert (head.worker_id, head.columns.wake_at) == (None, None)
        await asyncio.to_thread(lambda: operators.signal(store, job_id, "approved", "yes", by="anna"))
        await until(lambda: status(store, job_id) == "completed")

    beside_a_worker(store, wf, script=script)


def test_a_cancellation_that_meets_a_wake_up_is_not_lost(store: Store) -> None:
    async def main() -> None:
        with Worker(store, settings=FAST) as worker:
            serving = Serving(worker, [quick()], 1, False)
            waiting = asyncio.create_task(serving._wait(60.0))
            await asyncio.sleep(0)
            serving._woken.set()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())


def test_a_run_in_process_keeps_the_job_while_it_waits(store: Store) -> None:
    wf = quick()
    wf.sleep("50ms", name="rest")
    job = wf.run(store=store)
    assert (job.status, types_of(store, job.job_id).count("JobReleased")) == ("completed", 0)


def test_jobs_are_handed_back_when_the_worker_is_cancelled(store: Store) -> None:
    started = threading.Event()
    wf: Workflow[Any, Any] = Workflow("endless")

    @wf.sub_step
    async def endless() -> None:
        started.set()
        await asyncio.sleep(3600)

    job_id = wf.submit(store=store)

    async def script() -> None:
        await until(started.is_set)

    beside_a_worker(store, wf, script=script)
    head = store.head(job_id)
    assert (head.worker_id, head.columns.status, head.columns.wake_at) == (None, "queued", head.columns.created_at)


def test_a_worker_that_was_declared_dead_stops_with_a_typed_error_and_its_host_goes_on(store: Store) -> None:
    started, ended = threading.Event(), threading.Event()
    wf: Workflow[Any, Any] = Workflow("endless")

    @wf.sub_step
    async def endless() -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    job_id = wf.submit(store=store)

    async def main() -> None:
        working = asyncio.create_task(arun_worker(wf, store=store, settings=FAST))
        await until(started.is_set)
        worker_id = store.head(job_id).worker_id
        assert worker_id is not None
        store.retire_worker(worker_id)
        with pytest.raises(WorkerDead):
            await asyncio.wait_for(working, 20)

    asyncio.run(main())
    assert ended.is_set()
    assert types_of(store, job_id)[-1] == "SubStepStarted"


def test_a_job_whose_run_breaks_off_is_given_up_and_run_by_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf = quick()
    job_id = wf.submit(store=store)
    run = Worker.run

    async def broken(self: Worker, owned: Any) -> Any:
        monkeypatch.setattr(Worker, "run", run)
        raise RuntimeError("a bug")

    monkeypatch.setattr(Worker, "run", broken)
    run_worker(wf, store=store, one_shot=True, settings=FAST)
    assert (store.head(job_id).worker_id, status(store, job_id)) == (None, "running")
    run_worker(wf, store=store, one_shot=True, settings=FAST)
    assert status(store, job_id) == "completed"


def test_a_job_that_is_given_up_while_its_worker_looks_for_work_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf, looks, looks_again = quick(), list[WorkQuery](), threading.Event()
    job_id = wf.submit(store=store)
    look = type(store).look_for_work

    async def broken(self: Worker, owned: Any) -> Any:
        await asyncio.to_thread(looks_again.wait, 20)
        raise RuntimeError("a bug")

    def slow(self: Store, query: WorkQuery) -> Work:
        looks.append(query)
        if len(looks) == 2:
            looks_again.set()
            while store.head(job_id).worker_id is not None:
                time.sleep(0.01)
        return look(self, query)

    monkeypatch.setattr(Worker, "run", broken)
    monkeypatch.setattr(type(store), "look_for_work", slow)
    run_worker(wf, store=store, one_shot=True, settings=FAST)
    assert len(looks) >= 2
    assert types_of(store, job_id) == ["JobCreated", "JobClaimed"]


def test_a_worker_outlives_a_store_that_is_away_and_does_not_hammer_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf, looks = quick(), []
    job_id = wf.submit(store=store)
    look = type(store).look_for_work

    def away(self: Store, query: WorkQuery) -> Work:
        looks.append(query)
        if len(looks) <= 4:
            raise StoreUnavailable("away")
        return look(self, query)

    monkeypatch.setattr(type(store), "look_for_work", away)

    async def script() -> None:
        await until(lambda: status(store, job_id) == "completed")

    beside_a_worker(store, wf, script=script)
    assert len(looks) >= 5


def test_a_hint_cuts_the_wait_short(store: Store) -> None:
    wf = quick()
    patient = Settings(poll_s=60, poll_s_max=60)

    async def main() -> None:
        working = asyncio.create_task(arun_worker(wf, store=store, settings=patient))
        jobs: list[str] = []

        def submitted_and_done() -> bool:
            """One submitted after the worker has begun to wait is run long before the next poll."""
            jobs.append(wf.submit(store=store))
            return status(store, jobs[max(0, len(jobs) - 5)]) == "completed" and len(jobs) > 20

        await until(submitted_and_done)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(main())


def test_a_job_paused_while_it_waits_and_resumed_is_due_at_once(store: Store) -> None:
    wf = quick()
    wf.sleep("1h", name="rest")
    job_id = wf.submit(store=store)
    run_worker(wf, store=store, one_shot=True, settings=FAST)
    assert status(store, job_id) == "waiting"
    operators.pause(store, job_id, by="anna")
    operators.resume(store, job_id, by="anna")
    state = load(store, job_id).state
    (due,) = store.look_for_work(WorkQuery(["quick"])).due
    assert (state["status"], due.job_id) == ("queued", job_id)
    assert isinstance(due, Head)


def test_limits_hold_across_workers_and_hold_up_no_others(store: Store) -> None:
    most, running, ran = Counter[str](), Counter[str](), []
    wf: Workflow[Any, Any] = Workflow("limited")
    wf.limit(concurrency=2, per="tenant")
    tenant_of: dict[str, str] = {}

    @wf.sub_step
    async def work(step: Step) -> None:
        tenant = tenant_of[step.job_id]
        running[tenant] += 1
        most[tenant] = max(most[tenant], running[tenant])
        await asyncio.sleep(0.01)
        running[tenant] -= 1
        ran.append(tenant)

    for tenant, jobs in (("busy", 12), ("calm", 2)):
        for _ in range(jobs):
            tenant_of[wf.submit(store=store, tags={"tenant": tenant})] = tenant

    async def main() -> None:
        workers = [asyncio.create_task(serve_alone(store, wf)) for _ in range(2)]
        await until(lambda: len(ran) == 14)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)

    asyncio.run(main())
    assert most["busy"] <= 2
    assert ran.index("calm") < 8


async def serve_alone(store: Store, wf: Workflow[Any, Any]) -> None:
    """A worker of its own, where runs on one store would share one."""
    with Worker(store, settings=FAST) as worker:
        await Serving(worker, [wf], 10, one_shot=False).run()


def test_what_runs_beside_the_jobs_is_told_to_stop(store: Store) -> None:
    stopped: list[bool] = []
    run_worker(quick(), store=store, one_shot=True, beside=[lambda stop: stopped.append(stop.wait(20))])
    assert stopped == [True]
