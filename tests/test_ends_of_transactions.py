"""How a handler's transaction ends where threads are scarce, where the store refuses it, and where it was spoiled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from transactional_stores import MeddledTransactions, effects, make_table, opened_beside

from steplog import JobHandle, Retry, Settings, StatementFailed, Step, Transaction, Workflow
from steplog.engine import operators
from steplog.engine.jobs import prepare, recorded_input, run_here
from steplog.engine.worker import Worker
from steplog.eventstore import sqlite_watchdog
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import OutcomeUnknown, StoreUnavailable, TransactionClosed
from steplog.eventstore.store import Store

DONE_S_MAX = 20
THREADS = 32
"""As many as a pool has at most."""


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind, with the table `effects` beside its log."""
    with closing(opened_beside(request.param, request, tmp_path)) as opened:
        opened.migrate()
        make_table(opened)
        yield opened


def run(wf: Workflow[Any, Any], store: Any) -> JobHandle[Any]:
    return asyncio.run(asyncio.wait_for(wf.arun(store=store), DONE_S_MAX))


def error_of(job: JobHandle[Any]) -> Any:
    return job.snapshot["phases"]["main"]["sub_steps"]["book"]["error"]


def causes(store: Store, job: JobHandle[Any]) -> list[str]:
    return [event.data["cause"] for event in store.read(job.job_id) if event.type == "SubStepInterrupted"]


# --- every other thread is taken -------------------------------------------------------------------------------------


@contextmanager
def every_thread_taken(worker: Worker) -> Iterator[threading.Event]:
    """Those of the event loop's pool, and those in which runs call the store: they may wait for a lock there.

    For ever, as far as the test goes: what waits for them finds them free, and the event set.
    """
    loop, free = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    for _ in range(THREADS):
        loop.run_in_executor(None, free.wait)
        worker.outbox().call(free.wait)
    for_ever = threading.Timer(DONE_S_MAX / 4, free.set)
    for_ever.start()
    try:
        yield free
    finally:
        for_ever.cancel()
        free.set()


def run_with_every_thread_taken(wf: Workflow[Any, Any], store: Store) -> Any:
    """The job's state."""

    async def go() -> Any:
        with Worker(store, settings=Settings(grace_s=1.0)) as worker:
            owned, job = prepare(worker, wf, recorded_input(wf, None), None)
            store.create(job)
            with every_thread_taken(worker) as free:
                state = await worker.run(owned)
                assert not free.is_set()
                return state

    return asyncio.run(go())


def test_a_transaction_is_committed_although_every_other_thread_waits(store: Store) -> None:
    """They may be waiting for the very lock that it holds."""
    wf = Workflow("crowded")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        tx.execute("insert into effects values ('menu')")

    assert run_with_every_thread_taken(wf, store)["status"] == "completed"
    assert effects(store) == ["menu"]


def test_a_transaction_that_takes_too_long_is_rolled_back_although_every_other_thread_waits(store: Store) -> None:
    wf = Workflow("crowded and slow")
    rolled_back = threading.Event()

    @wf.sub_step(timeout=0.2)
    def book(tx: Transaction) -> None:
        tx.execute("insert into effects values ('menu')")
        while not rolled_back.wait(0.02):
            try:
                tx.execute("select 1")
            except Exception:
                rolled_back.set()
                raise

    assert run_with_every_thread_taken(wf, store)["status"] == "failed"
    assert effects(store) == []


def test_a_cancellation_is_heard_although_handlers_hold_every_thread_of_the_loop(store: Store) -> None:
    wf, free = Workflow("hogged"), threading.Event()

    @wf.sub_step
    async def fetch(step: Step) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        operators.cancel(store, step.job_id, by="anna", clock=SystemClock())
        await asyncio.to_thread(free.wait, DONE_S_MAX)

    async def go() -> JobHandle[Any]:
        try:
            async with asyncio.timeout(DONE_S_MAX / 2):
                return await run_here(wf, store=store, settings=Settings(heartbeat_s=0.05, grace_s=0.1))
        finally:
            free.set()

    assert asyncio.run(go()).status == "cancelled"


# --- the store refuses it --------------------------------------------------------------------------------------------


class Refusing(MeddledTransactions):
    """The ends of its transactions come to that error: at the append, or at the commit."""

    def __init__(self, store: Store, error: StoreUnavailable, *, at_commit: bool) -> None:
        super().__init__(store, self._refuse if at_commit else lambda committed: committed())
        self._error = error
        self._at_commit = at_commit

    def _refuse(self, committed: Callable[[], None]) -> None:
        raise self._error

    def begin(self, timeout_s: float | None = None) -> Any:
        begun: Any = super().begin(timeout_s)
        if not self._at_commit:
            begun.append = lambda item: self._refuse(lambda: None)
        return begun


@pytest.mark.parametrize(
    ("error", "at_commit", "tried"),
    [
        (StoreUnavailable("cannot execute INSERT in a read-only transaction"), False, 4),
        (OutcomeUnknown("the server ended the connection"), True, 11),
    ],
    ids=["at the append", "at the commit"],
)
def test_a_transaction_that_is_lost_again_and_again_is_a_failure_and_not_tried_for_ever(
    store: Store, error: StoreUnavailable, at_commit: bool, tried: int
) -> None:
    wf, calls = Workflow("refused"), 0

    @wf.sub_step
    def book(tx: Transaction) -> None:
        nonlocal calls
        calls += 1
        tx.execute("insert into effects values ('menu')")

    job = run(wf, Refusing(store, error, at_commit=at_commit))

    assert (job.status, calls, effects(store)) == ("failed", tried, [])
    assert causes(store, job) == ["commit unknown"] * (tried - 1)
    assert (error_of(job)["type"], error_of(job)["message"]) == (type(error).__name__, str(error))


def test_a_refused_transaction_is_tried_again_as_its_retries_say(store: Store) -> None:
    wf, calls = Workflow("refused and retried"), 0

    @wf.sub_step(retry=Retry(attempts=2, wait=0))
    def book(tx: Transaction) -> None:
        nonlocal calls
        calls += 1

    job = run(wf, Refusing(store, StoreUnavailable("no room"), at_commit=False))

    assert (job.status, calls) == ("failed", 5)


# --- the handler spoiled it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_on_postgres_a_handler_that_makes_its_transaction_read_only_fails_at_once(store: Store) -> None:
    wf, calls = Workflow("reads"), 0

    @wf.sub_step
    def book(tx: Transaction) -> None:
        nonlocal calls
        calls += 1
        tx.execute("set transaction read only")

    job = run(wf, store)

    assert (job.status, calls, error_of(job)["type"]) == ("failed", 1, "StatementFailed")
    assert "read only" in error_of(job)["message"]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_on_sqlite_a_handler_that_says_it_only_reads_completes(store: Store) -> None:
    wf = Workflow("reads")

    @wf.sub_step
    def book(tx: Transaction) -> int:
        tx.execute("pragma query_only = on")
        return len(list(tx.execute("select * from effects")))

    assert run(wf, store).result(book) == 0


def test_a_savepoint_set_behind_a_statement_that_failed_does_not_mend_it(store: Store) -> None:
    wf, refused, failing = Workflow("too late"), [], "insert into nowhere values (1)"

    @wf.sub_step
    def book(tx: Transaction) -> None:
        for statement in (failing, "savepoint s", "rollback to savepoint s", "insert into effects values ('menu')"):
            try:
                tx.execute(statement)
            except StatementFailed:
                refused.append(statement)

    job = run(wf, store)

    assert (job.status, len(refused), effects(store)) == ("failed", 4, [])
    assert "earlier statement failed" in error_of(job)["message"]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_two_statements_in_one_which_sqlite_does_not_take_fail_the_attempt_that_swallows_it(store: Store) -> None:
    wf = Workflow("two at once")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        with pytest.raises(StatementFailed, match="one statement at a time"):
            tx.execute("insert into effects values ('menu'); insert into effects values ('drinks')")

    job = run(wf, store)

    assert (job.status, error_of(job)["type"]) == ("failed", "StatementFailed")


def test_rows_of_which_one_cannot_be_sent_are_all_left_out(store: Store) -> None:
    wf = Workflow("half of them")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        for refused in (object(), "lone \ud800"):
            with pytest.raises(StatementFailed):
                tx.executemany("insert into effects values (%s)", [["menu"], ["drinks"], [refused]])
        tx.executemany("insert into effects values (%s)", [["soup"], ["stew"]])

    assert (run(wf, store).status, effects(store)) == ("completed", ["soup", "stew"])


def test_a_checkpoint_that_is_refused_holds_up_no_sibling(store: Store) -> None:
    """Both the handler and the file's lock go on until its end."""
    wf, settled = Workflow("refused checkpoint"), threading.Event()

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        with pytest.raises(StatementFailed):
            tx.execute("insert into nowhere values (1)")
        with pytest.raises(StatementFailed):
            step.checkpoint(1)
        settled.wait(0.3)

    @wf.sub_step
    async def sibling() -> None:
        await asyncio.sleep(0.1)

    job = run(wf, store)

    assert (job.status, error_of(job)["type"]) == ("failed", "StatementFailed")
    assert "nowhere" in error_of(job)["message"]


def test_a_savepoint_is_gone_back_to_behind_a_comment_too(store: Store) -> None:
    wf = Workflow("commented")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        tx.execute("savepoint s")
        with pytest.raises(StatementFailed):
            tx.execute("insert into nowhere values (1)")
        tx.execute("/* undo\n it */ -- all of it\n rollback to savepoint s")

    assert run(wf, store).status == "completed"


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_on_sqlite_a_transaction_that_nobody_ends_is_rolled_back_for_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loop is blocked, or closed: until then nobody else can write."""
    monkeypatch.setattr(sqlite_watchdog, "PATIENCE_S", 0.1)
    for _ in range(2):
        left = store.begin(0.1)
        left.execute("insert into effects values ('menu')")
        for_ever = threading.Timer(DONE_S_MAX / 4, left.roll_back)
        for_ever.start()
        other = store.begin(5.0)
        began_before = for_ever.is_alive()
        for_ever.cancel()
        other.execute("insert into effects values ('drinks')")
        other.roll_back()
        assert began_before
        with pytest.raises(TransactionClosed):
            left.execute("select 1")
    assert effects(store) == []


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_on_postgres_a_transaction_may_have_longer_than_the_servers_settings_take(store: Store) -> None:
    wf = Workflow("patient")

    @wf.sub_step(timeout="30d")
    def book(tx: Transaction) -> None:
        tx.execute("insert into effects values ('menu')")

    assert (run(wf, store).status, effects(store)) == ("completed", ["menu"])


def test_a_savepoint_set_before_a_statement_that_failed_mends_it(store: Store) -> None:
    wf = Workflow("in time")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        tx.execute("savepoint s")
        with pytest.raises(StatementFailed):
            tx.execute("insert into nowhere values (1)")
        tx.execute("rollback to savepoint s")
        tx.execute("insert into effects values ('menu')")

    assert (run(wf, store).status, effects(store)) == ("completed", ["menu"])
