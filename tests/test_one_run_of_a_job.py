"""A job has one run in a worker: who asks for it again waits for that, and whatever ends a loop hands it back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from steplog import Context, JobHandle, Settings, Step, Transaction, Workflow, arun_worker, run_worker
from steplog.engine import operators, runner, transactional
from steplog.engine.errors import OwnershipLost, RunCancelled
from steplog.engine.jobs import run_here
from steplog.engine.worker import Worker
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.store import Claim, Head, HeadQuery, Store, Work, WorkQuery

DONE_S_MAX = 20
FAST = Settings(poll_s=0.02, poll_s_max=0.05, heartbeat_s=0.05, grace_s=0.1)


class Gate:
    """A workflow whose jobs wait inside their only sub-step, and how many of its handlers ran at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.inside = 0
        self.most = 0
        self.reached = asyncio.Event()
        self.leave = asyncio.Event()
        self.cleaning_s = 0.0
        self.workflow: Workflow[Any, Any] = Workflow("gate")

        @self.workflow.sub_step
        async def wait() -> str:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.reached.set()
            try:
                await self.leave.wait()
            finally:
                await asyncio.sleep(self.cleaning_s)
                self.inside -= 1
            return "done"

    def run(self, store: Store, key: str | None = "k") -> asyncio.Task[JobHandle[Any]]:
        return asyncio.create_task(run_here(self.workflow, key=key, store=store, settings=FAST))


def in_time(scenario: Any) -> Any:
    return asyncio.run(asyncio.wait_for(scenario, DONE_S_MAX))


async def until(said: Callable[[], bool]) -> None:
    """Wait for what another thread or task brings about."""
    moment = threading.Event()
    while not said():
        await asyncio.to_thread(moment.wait, 0.01)


def only_job(store: Store) -> Head:
    (head,) = store.heads(HeadQuery())
    return head


def types_of(store: Store) -> list[str]:
    return [event.type for event in store.read(only_job(store).job_id)]


# --- who asks again --------------------------------------------------------------------------------------------------


def test_runs_with_one_key_are_one_run_and_all_have_its_end(store: Store) -> None:
    async def scenario() -> tuple[Gate, list[str]]:
        gate = Gate()
        first = gate.run(store)
        await gate.reached.wait()
        others = [gate.run(store) for _ in range(3)]
        await asyncio.sleep(0.1)
        gate.leave.set()
        return gate, [(await run).status for run in (first, *others)]

    gate, statuses = in_time(scenario())

    assert (gate.calls, statuses) == (1, ["completed"] * 4)
    assert types_of(store).count("JobClaimed") == 1


def test_a_job_that_was_submitted_is_run_once_by_all_who_ask_for_it_at_the_same_time(store: Store) -> None:
    async def scenario() -> tuple[Gate, list[str]]:
        gate = Gate()
        gate.leave.set()
        await gate.workflow.asubmit(key="k", store=store)
        return gate, [job.status for job in await asyncio.gather(*(gate.run(store) for _ in range(8)))]

    gate, statuses = in_time(scenario())

    assert (gate.calls, statuses) == (1, ["completed"] * 8)
    assert types_of(store).count("JobClaimed") == 1


def test_a_run_of_a_job_that_the_fleets_worker_runs_waits_for_it(store: Store) -> None:
    async def scenario() -> tuple[Gate, str, bool]:
        gate = Gate()
        await gate.workflow.asubmit(key="k", store=store)
        serving = asyncio.create_task(arun_worker(gate.workflow, store=store, settings=FAST))
        await gate.reached.wait()
        run = gate.run(store)
        await asyncio.sleep(0.1)
        gate.leave.set()
        status, lives = (await run).status, not serving.done()
        serving.cancel()
        await asyncio.wait({serving})
        return gate, status, lives

    gate, status, lives = in_time(scenario())

    assert (gate.calls, status, lives) == (1, "completed", True)


def test_a_run_of_a_job_that_the_fleets_worker_gives_back_goes_on_with_it(store: Store) -> None:
    """It only waits; whoever asks for its end waits for that."""
    wf: Workflow[Any, Any] = Workflow("patient")
    reached = asyncio.Event()

    @wf.sub_step
    async def begin() -> None:
        reached.set()
        await asyncio.sleep(0.2)

    wf.sleep("500ms", after=[begin])

    async def scenario() -> str:
        await wf.asubmit(key="k", store=store)
        settings = Settings(poll_s=30.0, release_after_s=0.0, heartbeat_s=0.05)
        serving = asyncio.create_task(arun_worker(wf, store=store, settings=settings))
        await reached.wait()
        job = await run_here(wf, key="k", store=store, settings=settings)
        serving.cancel()
        await asyncio.wait({serving})
        return job.status

    assert in_time(scenario()) == "completed"


def test_a_job_is_handed_back_when_the_last_who_waits_for_it_is_cancelled(store: Store) -> None:
    async def scenario() -> tuple[str, str]:
        gate = Gate()
        first = gate.run(store)
        await gate.reached.wait()
        second = gate.run(store)
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.wait({first})
        between = only_job(store).columns.status
        second.cancel()
        await asyncio.wait({second})
        return between, only_job(store).columns.status

    assert in_time(scenario()) == ("running", "queued")


def test_a_run_that_times_out_leaves_the_worker_beside_it_alone(store: Store) -> None:
    async def scenario() -> tuple[bool, str]:
        gate, quick = Gate(), Workflow("quick")
        quick.sub_step(name="only")(lambda: None)
        serving = asyncio.create_task(arun_worker(quick, store=store, settings=FAST))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.run(store), 0.3)
        job_id = await quick.asubmit(store=store)
        await until(lambda: serving.done() or store.head(job_id).columns.status == "completed")
        lives = not serving.done()
        serving.cancel()
        await asyncio.wait({serving})
        return lives, store.head(job_id).columns.status

    assert in_time(scenario()) == (True, "completed")


# --- however it ends -------------------------------------------------------------------------------------------------


def test_a_run_that_is_cancelled_twice_is_over_when_its_handlers_are(store: Store) -> None:
    async def scenario() -> Gate:
        gate = Gate()
        gate.cleaning_s = 0.3
        run = gate.run(store)
        await gate.reached.wait()
        for _ in range(3):
            run.cancel()
            await asyncio.sleep(0.05)
        await asyncio.wait({run})
        gate.cleaning_s, status = 0.0, only_job(store).columns.status
        assert status == "queued"
        gate.leave.set()
        await gate.run(store)
        return gate

    gate = in_time(scenario())

    assert (gate.calls, gate.most) == (2, 1)


@pytest.mark.parametrize("how", ["arun", "worker"])
def test_a_loop_that_ends_with_a_job_under_way_hands_it_back(store: Store, how: str) -> None:
    """As asyncio.run does: it cancels every task there is, the job's own run too."""
    tasks: list[Any] = []

    async def main() -> None:
        gate = Gate()
        if how == "arun":
            tasks.append(gate.run(store))
        else:
            await gate.workflow.asubmit(store=store)
            tasks.append(asyncio.create_task(arun_worker(gate.workflow, store=store, settings=FAST)))
        await gate.reached.wait()

    in_time(main())

    assert (only_job(store).columns.status, only_job(store).worker_id) == ("queued", None)
    assert types_of(store)[-2:] == ["SubStepInterrupted", "JobReleased"]


def test_what_a_cancelled_worker_claims_all_the_same_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, goes_on = threading.Event(), threading.Event()
    look = type(store).look_for_work

    def slow(self: Store, query: WorkQuery) -> Work:
        looks.set()
        goes_on.wait(DONE_S_MAX)
        return look(self, query)

    async def scenario() -> None:
        gate, quick = Gate(), Workflow("quick")
        quick.sub_step(name="only")(lambda: None)
        kept = gate.run(store)  # the worker lives on
        await gate.reached.wait()
        await quick.asubmit(store=store)
        monkeypatch.setattr(type(store), "look_for_work", slow)
        serving = asyncio.create_task(arun_worker(quick, store=store, settings=FAST))
        await asyncio.to_thread(looks.wait, DONE_S_MAX)
        serving.cancel()
        await asyncio.sleep(0.05)
        goes_on.set()
        await asyncio.wait({serving})
        (head,) = store.heads(HeadQuery(workflow="quick"))
        assert head.worker_id is None
        gate.leave.set()
        await kept

    in_time(scenario())


def test_a_worker_whose_loop_was_closed_leaves_its_jobs_to_others(store: Store) -> None:
    called: list[int] = []
    wf: Workflow[Any, Any] = Workflow("closed")

    @wf.sub_step
    async def work() -> None:
        called.append(len(called))
        if len(called) == 1:
            await asyncio.sleep(3600)

    loop = asyncio.new_event_loop()
    left = loop.create_task(run_here(wf, store=store, settings=FAST))
    while not called:
        loop.run_until_complete(asyncio.sleep(0.01))
    left._log_destroy_pending = False  # type: ignore[attr-defined]  # that it is destroyed is what this is about
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # as above
    loop.close()

    async def another() -> None:
        serving = asyncio.create_task(arun_worker(wf, store=store, settings=FAST))
        await until(lambda: only_job(store).columns.status == "completed")
        serving.cancel()
        await asyncio.wait({serving})

    in_time(another())

    assert len(called) == 2


# --- one job and the others ------------------------------------------------------------------------------------------


def test_a_type_that_raises_anything_at_all_is_a_refusal_and_the_others_run(store: Store) -> None:
    rates = {"EUR": 1.0, "DEM": 0.5}

    class Price(BaseModel):
        currency: str

        @field_validator("currency")
        @classmethod
        def known(cls, currency: str) -> str:
            return currency if rates[currency] else ""

    wf, other = Workflow("prices", input=Price), Workflow("other")
    wf.sub_step(name="only")(lambda: None)
    other.sub_step(name="only")(lambda: None)
    refused = wf.submit(Price(currency="DEM"), store=store)
    del rates["DEM"]  # by the next release
    job_id = other.submit(store=store)

    run_worker(wf, other, store=store, one_shot=True, settings=FAST)

    assert [store.head(each).columns.status for each in (refused, job_id)] == ["queued", "completed"]


def test_a_context_that_the_code_refuses_fails_the_fan_out_and_what_was_done_stays_done(store: Store) -> None:
    class Size(Context):
        n: int = 1

    wf = Workflow("sizes", context=Size)
    first, second = wf.phase("first"), wf.phase("second")
    calls: list[str] = []

    @first.sub_step
    def measure(step: Step) -> None:
        calls.append("measure")
        operators.set_context(store, step.job_id, {"n": "many"}, by="anna", clock=SystemClock())

    @second.map(items=lambda job: range(job.context.n), key=str)
    def work(number: int) -> None: ...

    job = wf.run(store=store)

    assert (job.status, calls) == ("failed", ["measure"])
    phases = job.snapshot["phases"]
    assert phases["first"]["sub_steps"]["measure"]["status"] == "completed"
    assert phases["second"]["sub_steps"]["work"]["error"]["type"] == "ValidationError"


def test_a_payload_whose_type_raises_fails_the_wait_that_takes_it(store: Store) -> None:
    class Known(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def known(cls, name: str) -> str:
            return {"anna": name}[name]

    wf = Workflow("signals")
    wf.wait_for_signal("go", Known)
    job_id = wf.submit(store=store)
    operators.signal(store, job_id, "go", {"name": "bert"}, by="anna", clock=SystemClock())

    run_worker(wf, store=store, one_shot=True, settings=FAST)

    (failed,) = [event for event in store.read(job_id) if event.type == "SubStepFailed"]
    assert (failed.data["error"]["type"], "KeyError" in failed.data["error"]["message"]) == ("SignalRefused", True)


def test_a_loop_that_ends_while_a_worker_opens_leaves_none_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, goes_on = threading.Event(), threading.Event()
    register = type(store).register_worker

    def slow(self: Store, *told: Any) -> None:
        opens.set()
        goes_on.wait(DONE_S_MAX)
        register(self, *told)

    async def main() -> None:
        run = Gate().run(store)
        await asyncio.to_thread(opens.wait, DONE_S_MAX)
        asyncio.get_running_loop().call_later(0.1, goes_on.set)
        assert not run.done()

    monkeypatch.setattr(type(store), "register_worker", slow)
    in_time(main())

    assert [worker.state for worker in store.workers()] == ["stopped"]
    assert [thread.name for thread in threading.enumerate() if thread.name == "steplog-heartbeat"] == []


def test_what_is_being_stored_when_a_loop_ends_is_stored_once_and_decided_upon_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, goes_on = threading.Event(), threading.Event()
    append = type(store).append

    def slow(self: Store, batch: Any) -> Any:
        if any(event.type == "SubStepCompleted" for item in batch for event in item.events):
            stores.set()
            goes_on.wait(DONE_S_MAX)
        return append(self, batch)

    async def main() -> None:
        gate = Gate()
        gate.leave.set()

        @gate.workflow.phase("behind").sub_step
        async def endless() -> None:
            await asyncio.sleep(3600)

        run = gate.run(store)
        await asyncio.to_thread(stores.wait, DONE_S_MAX)
        asyncio.get_running_loop().call_later(0.1, goes_on.set)
        assert not run.done()

    monkeypatch.setattr(type(store), "append", slow)
    in_time(main())

    assert only_job(store).columns.status == "queued"
    assert types_of(store).count("SubStepCompleted") == 1
    assert "LateOutcome" not in types_of(store)


def test_a_commit_that_is_under_way_when_a_loop_ends_is_no_take_over(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commits, tasks = threading.Event(), list[Any]()
    wf: Workflow[Any, Any] = Workflow("books")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        tx.execute("select 1")

    def slow(transaction: Any, item: Any) -> Any:
        ended = transactional.append_and_commit(transaction, item)
        commits.set()
        threading.Event().wait(0.2)
        return ended

    async def main() -> None:
        tasks.append(asyncio.create_task(run_here(wf, store=store, settings=FAST)))
        await asyncio.to_thread(commits.wait, DONE_S_MAX)

    monkeypatch.setattr(runner, "append_and_commit", slow)
    in_time(main())

    assert only_job(store).columns.status == "completed"
    assert tasks[0].cancelled() or tasks[0].result().status == "completed"
    assert [said for said in caplog.messages if "taken over" in said] == []


def test_only_whoever_cancelled_a_run_is_surprised_by_its_end(store: Store) -> None:
    async def scenario() -> None:
        gate = Gate()
        run = gate.run(store)
        await gate.reached.wait()
        (own,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("job ")]
        own.cancel()
        with pytest.raises(RunCancelled):
            await run

    in_time(scenario())
    assert only_job(store).columns.status == "queued"


def test_a_run_that_is_cancelled_while_its_job_is_created_hands_it_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    creates, goes_on = threading.Event(), threading.Event()
    create_many = type(store).create_many

    def slow(self: Store, jobs: Any) -> Any:
        creates.set()
        goes_on.wait(DONE_S_MAX)
        return create_many(self, jobs)

    async def scenario() -> bool:
        quick: Workflow[Any, Any] = Workflow("quick")
        quick.sub_step(name="only")(lambda: None)
        serving = asyncio.create_task(arun_worker(quick, store=store, settings=FAST))
        await asyncio.sleep(0.1)
        monkeypatch.setattr(type(store), "create_many", slow)
        run = Gate().run(store)
        await asyncio.to_thread(creates.wait, DONE_S_MAX)
        run.cancel()
        await asyncio.sleep(0.05)
        goes_on.set()
        await asyncio.wait({run})
        lives = not serving.done()
        serving.cancel()
        await asyncio.wait({serving})
        return lives and run.cancelled()

    assert in_time(scenario())
    assert (only_job(store).columns.status, only_job(store).worker_id) == ("queued", None)


def test_a_worker_that_is_cancelled_as_its_loop_ends_is_closed(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("idle")
    wf.sub_step(name="only")(lambda: None)

    async def main() -> None:
        serving = asyncio.create_task(arun_worker(wf, store=store, settings=FAST))
        await asyncio.sleep(0.1)
        serving.cancel()

    asyncio.run(main())

    assert [worker.state for worker in store.workers()] == ["stopped"]


def test_a_job_that_is_lost_to_another_leaves_the_worker_beside_it_alone(store: Store) -> None:
    async def scenario() -> bool:
        quick: Workflow[Any, Any] = Workflow("quick")
        quick.sub_step(name="only")(lambda: None)
        serving = asyncio.create_task(arun_worker(quick, store=store, settings=FAST))
        gate = Gate()
        run = gate.run(store)
        await gate.reached.wait()
        head = only_job(store)
        store.abandon(head.job_id, Claim(head.worker_id or "", head.epoch, head.claim_id or ""))
        with Worker(store) as other:
            other.claim(head.job_id, gate.workflow)
            gate.leave.set()
            with pytest.raises(OwnershipLost):
                await run
        await asyncio.sleep(0.1)
        lives = not serving.done()
        serving.cancel()
        await asyncio.wait({serving})
        return lives

    assert in_time(scenario())
