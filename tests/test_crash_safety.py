"""`assert_crash_safe` passes what a crash cannot harm, and tells the story of what it can."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import orders_workflow as orders
import pytest
from orders_workflow import Bank, Lock, Order

from steplog import Context, Retry, Skip, Step, Transaction, Workflow, use
from steplog.testing import Kit
from steplog.testing.memory_of_modules import MemoryOfModules
from steplog.testing.threads import Threads


@pytest.fixture
def bank(steplog: Kit) -> Bank:
    """A bank in place of the real one."""
    bank = Bank()
    steplog.use(orders.open_bank, bank)
    return bank


def refused(steplog: Kit, workflow: Workflow[Any, Any], input: Any = None, **options: Any) -> str:
    """Why it is not crash-safe."""
    with pytest.raises(AssertionError) as raised:
        steplog.assert_crash_safe_blocking(workflow, input, **options)
    return str(raised.value)


def rows(steplog: Kit) -> list[tuple[Any, ...]]:
    with steplog.store.transaction() as tx:
        return list(tx.execute("select * from stock"))


def types(steplog: Kit, job_id: str) -> list[str]:
    return [event.type for event in steplog.store.read(job_id)]


# --- what is safe ----------------------------------------------------------------------------------------------------


def test_a_workflow_that_honours_keys_cursors_and_transactions_is_crash_safe(steplog: Kit, bank: Bank) -> None:
    with steplog.store.transaction() as tx:
        tx.execute(orders.STOCK)
    job = steplog.assert_crash_safe_blocking(orders.safe, Order(), effects=bank.charges)
    assert job.status == "completed"
    assert job.result(orders.seat) == 3
    runs = len(bank.charges)
    assert runs > 12
    assert len(rows(steplog)) == runs


def test_every_append_of_the_undisturbed_run_is_a_place_to_kill_at(steplog: Kit) -> None:
    wf = Workflow("two")
    one = wf.sub_step(name="one")(lambda: 1)
    wf.sub_step(name="two", after=[one])(lambda: 2)

    job = steplog.assert_crash_safe_blocking(wf)

    assert types(steplog, job.job_id)[-1] == "JobCompleted"
    with pytest.raises(ValueError, match="no boundary") as raised:
        steplog.assert_crash_safe_blocking(wf, only="there is none")
    assert str(raised.value) == (
        "no boundary 'there is none': there are after JobClaimed, after SubStepStarted main/one #1, "
        "before SubStepCompleted main/one #1, after SubStepStarted main/two #1, "
        "before SubStepCompleted main/two #1, after JobCompleted"
    )


def test_what_ends_at_the_same_time_is_recorded_one_by_one(steplog: Kit) -> None:
    wf = Workflow("siblings")

    async def ends() -> None: ...

    for number in range(3):
        wf.sub_step(name=f"plain{number}")(lambda: None)
        wf.sub_step(name=f"async{number}")(ends)

    with pytest.raises(ValueError, match="no boundary") as raised:
        steplog.assert_crash_safe_blocking(wf, only="there is none")
    assert str(raised.value).count("before SubStepCompleted") == 6


def test_a_job_that_fails_fails_the_same_way_after_each_crash(steplog: Kit) -> None:
    wf = Workflow("fails")

    @wf.sub_step(retry=Retry(attempts=3, wait="1d"))
    def never(step: Step) -> None:
        raise ConnectionError(f"attempt {step.attempt}")

    assert steplog.assert_crash_safe_blocking(wf).status == "failed"


def test_a_sub_step_that_is_to_be_held_goes_on_once_a_person_says_so(steplog: Kit) -> None:
    wf = Workflow("held")
    wf.sub_step(name="once", on_interrupt="hold")(lambda: 1)
    steplog.assert_crash_safe_blocking(wf)


def test_a_sub_step_that_is_to_fail_with_its_worker_may_do_so(steplog: Kit) -> None:
    wf = Workflow("fails with its worker")
    wf.sub_step(name="once", on_interrupt="fail")(lambda: 1)
    steplog.assert_crash_safe_blocking(wf)


def test_conditions_and_optional_failures_come_out_the_same(steplog: Kit) -> None:
    wf = Workflow("conditions")
    wf.sub_step(name="skipped", when=lambda job: Skip("not today"))(lambda: 1)

    @wf.sub_step(optional=True)
    async def fails() -> None:
        raise ValueError

    job = steplog.assert_crash_safe_blocking(wf)
    assert (job.status, len(job.warnings)) == ("completed", 1)


def test_results_made_of_the_jobs_own_id_and_keys_count_as_the_same(steplog: Kit) -> None:
    wf = Workflow("own names")
    wf.sub_step(name="key")(_key)
    steplog.assert_crash_safe_blocking(wf)


def _key(step: Step) -> str:
    return f"{step.job_id} {step.idempotency_key}"


async def _in_a_running_loop(steplog: Kit, bank: Bank) -> None:
    with steplog.store.transaction() as tx:
        tx.execute(orders.STOCK)
    job = await steplog.assert_crash_safe(orders.safe, Order(), effects=bank.charges)
    assert job.status == "completed"


def test_it_can_be_awaited(steplog: Kit, bank: Bank) -> None:
    asyncio.run(_in_a_running_loop(steplog, bank))


def test_no_thread_of_a_killed_worker_is_left(steplog: Kit, bank: Bank) -> None:
    with steplog.store.transaction() as tx:
        tx.execute(orders.STOCK)
    before = set(threading.enumerate())
    steplog.assert_crash_safe_blocking(orders.safe, Order(), effects=bank.charges)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


# --- what is not -----------------------------------------------------------------------------------------------------


def test_state_kept_in_a_module_is_found_and_the_module_left_as_it_was(steplog: Kit) -> None:
    told = refused(steplog, orders.forgetful, Order())
    assert 'main/order: "ordered with None" (undisturbed: "ordered with token")' in told
    assert orders.session is None


def test_a_key_drawn_at_random_is_found(steplog: Kit, bank: Bank) -> None:
    told = refused(steplog, orders.careless, Order(), effects=bank.charges)
    assert "effect ('soup', 3) happened 2 times (undisturbed: 1)" in told


def test_effects_may_be_told_by_a_function(steplog: Kit, bank: Bank) -> None:
    told = refused(steplog, orders.careless, Order(), effects=lambda: [dish for dish, _ in bank.charges])
    assert "effect 'soup' happened 2 times (undisturbed: 1)" in told


def test_a_cursor_that_is_ignored_is_found(steplog: Kit) -> None:
    told = refused(steplog, orders.impatient, Order())
    assert "main/seat_again: [0,0,1,2] (undisturbed: [0,1,2])" in told
    assert "context.seats: [0,0,1,2] (undisturbed: [0,1,2])" in told


def test_what_only_a_finally_would_free_stays_taken(steplog: Kit) -> None:
    steplog.use(orders.open_lock, Lock())
    told = refused(steplog, orders.possessive, Order())
    assert "job: failed with RuntimeError (undisturbed: completed)" in told


def test_what_is_waited_for_in_vain_after_a_crash_is_found(steplog: Kit) -> None:
    steplog.use(orders.open_lock, Lock())
    told = refused(steplog, orders.waiting, Order())
    assert "Killed before SubStepCheckpointed main/cook_later #1, and resumed" in told
    assert "main/cook_later#2" in told
    assert "would wait for ever" in told


def test_the_story_says_where_it_was_killed_and_how_to_see_it_again(steplog: Kit, bank: Bank) -> None:
    told = refused(steplog, orders.careless, Order(), effects=bank.charges)
    place = "before SubStepCompleted main/pay #1"
    lines = told.splitlines()
    assert lines[0] == f"workflow careless is not crash-safe. Killed {place}, and resumed by another worker:"
    log = [line.strip() for line in lines[3:-1]]
    assert log[3:7] == [
        "4 SubStepStarted main/pay #1",
        f"✗ killed {place}",
        "5 JobClaimed",
        "6 SubStepInterrupted main/pay #1",
    ]
    assert lines[-1] == f"to see this one alone: assert_crash_safe(..., only={place!r})"
    assert refused(steplog, orders.careless, Order(), effects=bank.charges, only=place).splitlines()[0] == lines[0]


def test_other_places_are_left_out(steplog: Kit, bank: Bank) -> None:
    only = "after JobCompleted"
    steplog.assert_crash_safe_blocking(orders.careless, Order(), effects=bank.charges, only=only)


def test_what_differs_without_a_crash_is_no_matter_of_crashes(steplog: Kit) -> None:
    told = refused(steplog, orders.moody, Order())
    assert "two undisturbed runs of workflow moody differ" in told
    steplog.assert_crash_safe_blocking(orders.moody, Order(), may_differ=[orders.draw, "context.receipt"])


# --- what a killed worker does ---------------------------------------------------------------------------------------


def test_a_killed_async_handler_cleans_up_only_when_all_is_over(steplog: Kit) -> None:
    wf = Workflow("cleans up")
    told: list[str] = []
    calls: list[int] = []

    @wf.sub_step
    async def work(step: Step) -> None:
        calls.append(step.attempt)
        try:
            await step.checkpoint(1)
        finally:
            told.append(f"end {step.attempt}")
        assert told[0].startswith("end"), told

    steplog.assert_crash_safe_blocking(wf, only="after SubStepCheckpointed main/work #1", may_differ=())
    assert calls == [1, 1, 1, 2]
    assert told == ["end 1", "end 1", "end 2", "end 1"]


def test_a_killed_plain_handler_stands_still_at_its_checkpoint(steplog: Kit) -> None:
    wf = Workflow("stands still")
    told: list[str] = []

    @wf.sub_step
    def work(step: Step) -> None:
        told.append(f"began {step.attempt}")
        step.checkpoint(1)
        told.append(f"ended {step.attempt}")

    steplog.assert_crash_safe_blocking(wf, only="after SubStepCheckpointed main/work #1")
    assert told[4:] == ["began 1", "began 2", "ended 2"]


def test_a_killed_plain_handler_stands_still_at_its_next_report(steplog: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = threading.Event()
    die = Threads.die

    def die_and_tell(threads: Threads) -> None:
        die(threads)
        dead.set()

    monkeypatch.setattr(Threads, "die", die_and_tell)
    wf = Workflow("reports")
    calls: list[int] = []
    told: list[str] = []
    wf.sub_step(name="first")(lambda: 1)

    @wf.sub_step
    def second(step: Step) -> None:
        calls.append(step.attempt)
        if len(calls) == 3:  # of the run that is killed
            dead.wait(10)
        step.progress(1)
        told.append(f"went on {step.attempt}")

    steplog.assert_crash_safe_blocking(wf, only="before SubStepCompleted main/first #1")
    assert told == ["went on 1", "went on 1", "went on 2"]


def test_what_a_transaction_of_a_killed_worker_had_written_is_undone(steplog: Kit) -> None:
    wf = Workflow("transaction")

    @wf.sub_step
    def writes(step: Step, tx: Transaction) -> int:
        tx.execute("insert into stock values (%s, %s)", [step.job_id, step.attempt])
        return len(list(tx.execute("select * from stock where dish = %s", [step.job_id])))

    with steplog.store.transaction() as tx:
        tx.execute(orders.STOCK)
    assert steplog.assert_crash_safe_blocking(wf, only="before SubStepCompleted main/writes #1").result(writes) == 1
    assert [attempt for _, attempt in rows(steplog)] == [1, 1, 2]


def test_a_resource_is_opened_anew_for_each_attempt(steplog: Kit) -> None:
    opened: list[str] = []

    def client() -> Iterator[str]:
        opened.append("open")
        yield "client"
        opened.append("closed")

    wf: Workflow[Any, Context] = Workflow("resources")

    @wf.sub_step
    async def work(it: str = use(client)) -> str:
        return it

    steplog.assert_crash_safe_blocking(wf, effects=list)
    assert opened.count("open") == opened.count("closed")


# --- what a new worker does not remember -----------------------------------------------------------------------------


def test_plain_data_of_the_handlers_modules_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, world = [1, {"a": {2}}], ["effect"]
    bank, ledger = Bank(), {"effects": world}
    module_variables = {"kept": kept, "world": world, "ledger": ledger, "bank": bank, "number": 1}
    for name, value in module_variables.items():
        monkeypatch.setattr(orders, name, value, raising=False)
    memory = MemoryOfModules(orders.safe, world)

    kept[1]["a"].add(3)  # type: ignore[index]
    kept.append("more")
    world.append("another")
    ledger["more"] = []
    bank.charges.append(("soup", 1))
    monkeypatch.setattr(orders, "number", 2)
    monkeypatch.setattr(orders, "kept", None)
    memory.forget()

    assert orders.kept is kept  # type: ignore[attr-defined]
    assert kept == [1, {"a": {2}}]
    assert (world, ledger) == (["effect", "another"], {"effects": world, "more": []})
    assert bank.charges == [("soup", 1)]
    assert orders.number == 1  # type: ignore[attr-defined]
