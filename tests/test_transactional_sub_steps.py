"""Transactional sub-steps: effect and completion are one commit, whatever the handler, others or the database do."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from transactional_stores import Commit, MeddledTransactions, effects, make_table, opened_beside

from steplog import (
    AttemptOver,
    Context,
    Fatal,
    Job,
    JobHandle,
    OwnershipLost,
    Retry,
    Settings,
    Skip,
    StatementFailed,
    Step,
    Transaction,
    Workflow,
    result,
)
from steplog.engine import transactional
from steplog.engine.facts import AttemptId, CheckpointReached
from steplog.engine.history import load
from steplog.engine.jobs import prepare, recorded_input, resume_blocking
from steplog.engine.transactional import TransactionalAttempt
from steplog.engine.worker import Worker
from steplog.eventstore.chain import seal
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import OutcomeUnknown, StoreError, StoreUnavailable, TransactionClosed
from steplog.eventstore.events import ContextChanged, EventData, SubStepSkipped
from steplog.eventstore.store import HeadQuery, Proposal, Store
from steplog.projections.evolve import Evolution
from steplog.projections.head import head_of
from steplog.testing.memory import MemoryStore

DONE_S_MAX = 20
AT_ONCE = Retry(attempts=3, wait=0, jitter=0)
ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


class Notes(Context):
    said: str = ""
    heard: str = ""


STORES = ["memory", "sqlite", "postgres", "portable"]
OTHERS_WRITE_MEANWHILE = ["memory", "postgres", "portable"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind, with the table `effects` beside its log."""
    opened: Store
    if request.param == "memory":
        opened = MemoryStore(SystemClock())
    else:
        opened = opened_beside(request.param, request, tmp_path)
    with closing(opened):
        opened.migrate()
        make_table(opened)
        yield opened


def others_write_meanwhile(test: Any) -> Any:
    return pytest.mark.parametrize("store", OTHERS_WRITE_MEANWHILE, indirect=True)(test)


def run(wf: Workflow[Any, Any], store: Any) -> JobHandle[Any]:
    """The ended job; a runner that waits for what will never come is a failure."""
    return asyncio.run(asyncio.wait_for(wf.arun(store=store), DONE_S_MAX))


def insert(tx: Transaction, name: str) -> None:
    tx.execute("insert into effects values (%s)", [name])


def types_of(store: Store, job_id: str) -> list[str]:
    return [event.type for event in store.read(job_id)]


def sub_step_of(job: JobHandle[Any], name: str) -> Any:
    return job.snapshot["phases"]["main"]["sub_steps"][name]


def somebody_else_appends(store: Store, job_id: str, *data: EventData) -> None:
    clock, loaded = SystemClock(), load(store, job_id)

    def rule(*_: object) -> Proposal:
        evolution = Evolution(loaded.state)
        for each in data:
            evolution.foresee(each, clock.now())
        return Proposal(seal(job_id, loaded.position, data, clock.now(), clock), head_of(evolution.state))

    store.append_locked(job_id, loaded.position, rule)


# --- one commit ------------------------------------------------------------------------------------------------------


def test_effect_completion_context_and_what_follows_are_one_append(store: Store) -> None:
    wf = Workflow("together", context=Notes)

    @wf.sub_step
    def book(step: Step[Any, Notes], tx: Transaction) -> int:
        insert(tx, "menu")
        step.context.said = "booked"
        return len(tx.execute("select name from effects").fetchall())

    @wf.sub_step
    def hear(tx: Transaction, count: int = result(book)) -> int:
        insert(tx, "heard")
        return count + 1

    meddled = MeddledTransactions(store, lambda commit: commit())
    job = run(wf, meddled)

    assert (job.status, job.result(hear), job.context.said) == ("completed", 2, "booked")
    assert effects(store) == ["heard", "menu"]
    assert [[event.type for event in item.events] for item in meddled.inside] == [
        ["ContextChanged", "SubStepCompleted", "SubStepStarted"],
        ["SubStepCompleted", "PhaseCompleted", "JobCompleted"],
    ]
    assert [[event.type for event in item.events] for item in meddled.beside] == [["PhaseStarted", "SubStepStarted"]]


def test_a_handler_that_raises_leaves_nothing_and_is_tried_again(store: Store) -> None:
    wf = Workflow("raises")

    @wf.sub_step(retry=AT_ONCE)
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, f"attempt {step.attempt}")
        if step.attempt < 3:
            raise ConnectionError

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "book")["attempts"]) == ("completed", 3)
    assert effects(store) == ["attempt 3"]
    assert types_of(store, job.job_id).count("SubStepFailed") == 2


def test_a_handler_that_skips_leaves_nothing(store: Store) -> None:
    wf = Workflow("skips")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        insert(tx, "menu")
        raise Skip("there is none")

    step = sub_step_of(run(wf, store), "book")

    assert (step["status"], step["reason"], effects(store)) == ("skipped", "there is none", [])


def test_a_result_that_cannot_be_recorded_leaves_nothing(store: Store) -> None:
    wf = Workflow("unrecordable")

    @wf.sub_step
    def book(tx: Transaction) -> Any:
        insert(tx, "menu")
        return float("nan")

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "book")["error"]["type"], effects(store)) == ("failed", "PayloadRefused", [])


# --- what the handler must not do ------------------------------------------------------------------------------------


def test_an_error_that_was_swallowed_fails_the_attempt_and_is_named(store: Store) -> None:
    wf = Workflow("swallows")

    @wf.sub_step(retry=Retry(attempts=2, wait=0))
    def book(step: Step, tx: Transaction) -> str:
        insert(tx, f"attempt {step.attempt}")
        if step.attempt == 1:
            with pytest.raises(StatementFailed):
                tx.execute("insert into nowhere values (1)")
        return "booked"

    job = run(wf, store)
    (failed,) = [event for event in store.read(job.job_id) if event.type == "SubStepFailed"]

    assert (job.result(book), effects(store)) == ("booked", ["attempt 2"])
    assert failed.data["error"]["type"] == "StatementFailed"
    assert "earlier statement failed" in failed.data["error"]["message"]
    assert "nowhere" in failed.data["error"]["message"]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_handler_that_ends_the_transaction_itself_fails_for_good_and_is_never_completed(
    store: Store, ending: str
) -> None:
    wf = Workflow("ends")

    @wf.sub_step(retry=AT_ONCE)
    def book(tx: Transaction) -> None:
        insert(tx, "menu")
        try:
            tx.execute(ending)
        except StoreError:
            return

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "book")["attempts"]) == ("failed", 1)
    assert sub_step_of(job, "book")["error"]["type"] == "TransactionEnded"
    assert "SubStepCompleted" not in types_of(store, job.job_id)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    "ending", ["commit; begin", "rollback; begin", "insert into effects values ('x'); commit; begin"]
)
def test_a_transaction_that_was_ended_and_begun_again_in_one_go_is_not_taken_for_the_first(
    store: Store, ending: str
) -> None:
    wf = Workflow("ends and begins")

    @wf.sub_step(retry=AT_ONCE)
    def book(tx: Transaction) -> None:
        insert(tx, "menu")
        tx.execute(ending)
        insert(tx, "in another transaction")

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "book")["error"]["type"]) == ("failed", "TransactionEnded")
    assert "in another transaction" not in effects(store)
    assert "SubStepCompleted" not in types_of(store, job.job_id)


def test_a_transaction_kept_beyond_its_attempt_takes_nothing(store: Store) -> None:
    wf = Workflow("keeps")
    kept: list[Transaction] = []

    @wf.sub_step
    def book(tx: Transaction) -> None:
        kept.append(tx)

    run(wf, store)

    with pytest.raises(StoreError, match="The transaction is over"):
        insert(kept[0], "late")
    assert effects(store) == []


# --- others meanwhile ------------------------------------------------------------------------------------------------


@others_write_meanwhile
def test_siblings_and_other_jobs_complete_while_a_handler_holds_its_transaction_open(store: Store) -> None:
    wf, other = Workflow("holds"), Workflow("another job")
    went_on = threading.Event()
    other.sub_step(name="work")(lambda: "done")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        insert(tx, "menu")
        assert went_on.wait(DONE_S_MAX)

    @wf.sub_step
    async def sibling() -> None: ...

    @wf.sub_step(after=[sibling])
    async def behind_the_sibling() -> None:
        assert (await other.arun(store=store)).status == "completed"
        went_on.set()

    job = run(wf, store)

    completed = [event.data["sub_step"] for event in store.read(job.job_id) if event.type == "SubStepCompleted"]
    assert (job.status, effects(store)) == ("completed", ["menu"])
    assert completed.index("sibling") < completed.index("book")


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_on_sqlite_siblings_and_other_jobs_wait_for_a_transaction_and_none_fails(store: Store) -> None:
    wf, other = Workflow("holds"), Workflow("another job")
    other.sub_step(name="work")(lambda: "done")
    begun, ran = threading.Event(), threading.Event()

    @wf.sub_step
    def book(tx: Transaction) -> None:
        begun.set()
        assert ran.wait(DONE_S_MAX)
        insert(tx, "menu")

    @wf.sub_step
    def sibling() -> None:
        assert begun.wait(DONE_S_MAX)

    async def both() -> list[JobHandle[Any]]:
        holding = asyncio.create_task(wf.arun(store=store))
        await asyncio.to_thread(begun.wait, DONE_S_MAX)
        waiting = asyncio.create_task(other.arun(store=store))
        asyncio.get_running_loop().call_later(0.1, ran.set)
        return [await holding, await waiting]

    jobs = asyncio.run(asyncio.wait_for(both(), DONE_S_MAX))

    assert [job.status for job in jobs] == ["completed", "completed"]
    assert effects(store) == ["menu"]


@others_write_meanwhile
def test_what_others_append_meanwhile_is_decided_upon_again_inside_the_transaction(store: Store) -> None:
    wf = Workflow("conflict", context=Notes)
    calls: list[str] = []

    @wf.sub_step
    def book(step: Step[Any, Notes], tx: Transaction) -> int:
        calls.append("book")
        insert(tx, "menu")
        somebody_else_appends(store, step.job_id, ContextChanged(set={"heard": "stop"}, by="anna"))
        step.context.said = "going on"
        return 7

    meddled = MeddledTransactions(store, lambda commit: commit())
    job = run(wf, meddled)

    assert (job.result(book), job.context) == (7, Notes(said="going on", heard="stop"))
    assert (calls, effects(store)) == (["book"], ["menu"])
    assert len(meddled.inside) == 2


@others_write_meanwhile
@pytest.mark.parametrize("outcome", [RuntimeError("too late"), Skip("nothing to do")], ids=["raises", "skips"])
def test_of_a_transaction_that_was_rolled_back_nothing_is_told_as_late(store: Store, outcome: Exception) -> None:
    wf = Workflow("rolled back late")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, "menu")
        done = SubStepSkipped(phase="main", sub_step="book", attempt=1, cause="operator", reason="no", by="anna")
        somebody_else_appends(store, step.job_id, done)
        raise outcome

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "book")["reason"], effects(store)) == ("completed", "no", [])
    assert "LateOutcome" not in types_of(store, job.job_id)


@others_write_meanwhile
def test_an_attempt_that_was_settled_otherwise_has_no_effect_and_no_late_outcome(store: Store) -> None:
    wf = Workflow("settled")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, "menu")
        skipped = SubStepSkipped(phase="main", sub_step="book", attempt=1, cause="operator", reason="no", by="anna")
        somebody_else_appends(store, step.job_id, skipped)

    @wf.sub_step(after=[book])
    def behind() -> None: ...

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "book")["status"], effects(store)) == ("completed", "skipped", [])
    assert not {"LateOutcome", "SubStepInterrupted"} & set(types_of(store, job.job_id))
    assert [event.data["sub_step"] for event in store.read(job.job_id) if event.type == "SubStepCompleted"] == [
        "behind"
    ]


@others_write_meanwhile
def test_an_attempt_whose_job_was_taken_over_has_no_effect(store: Store) -> None:
    wf = Workflow("taken over")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, "menu")
        if step.attempt == 1:
            former = store.head(step.job_id).worker_id
            assert former is not None
            store.retire_worker(former)
            with Worker(store) as heir:
                heir.claim(step.job_id, wf)

    with pytest.raises(OwnershipLost):
        run(wf, store)
    (head,) = store.heads(HeadQuery())

    assert (effects(store), "SubStepCompleted" in types_of(store, head.job_id)) == ([], False)
    assert resume_blocking(wf, head.job_id, store, by="anna").status == "completed"
    assert effects(store) == ["menu"]


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_commits_what_was_done_so_far_and_the_next_attempt_goes_on_from_it(store: Store) -> None:
    wf = Workflow("checkpoints", context=Notes)

    @wf.sub_step(retry=AT_ONCE)
    def load_menu(step: Step[Any, Notes], tx: Transaction) -> int:
        for page in range(step.cursor or 0, 4):
            insert(tx, f"page {page}")
            step.context.said += str(page)
            if page % 2:
                step.checkpoint(page + 1)
            if (step.attempt, page) == (1, 2):
                raise ConnectionError
        return len(step.context.said)

    job = run(wf, store)

    assert (job.result(load_menu), job.context.said) == (4, "0123")
    assert effects(store) == [f"page {page}" for page in range(4)]
    assert types_of(store, job.job_id).count("SubStepCheckpointed") == 2


@others_write_meanwhile
def test_a_checkpoint_of_an_attempt_that_was_settled_otherwise_commits_nothing(store: Store) -> None:
    wf = Workflow("late checkpoint")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, "menu")
        skipped = SubStepSkipped(phase="main", sub_step="book", attempt=1, cause="operator", reason="no", by="anna")
        somebody_else_appends(store, step.job_id, skipped)
        with pytest.raises(AttemptOver):
            step.checkpoint(1)

    job = run(wf, store)

    assert (job.status, effects(store)) == ("completed", [])
    assert not {"SubStepCheckpointed", "LateOutcome"} & set(types_of(store, job.job_id))


@pytest.mark.parametrize("asked_first", [False, True], ids=["closed before", "closed before it got to it"])
def test_a_checkpoint_of_a_handler_that_outlives_its_run_is_not_waited_for(
    asked_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be killed: it may come to its checkpoint when the loop is closed that was to record it."""
    loop = asyncio.new_event_loop()
    ask = asyncio.run_coroutine_threadsafe

    def ask_and_close(recording: Any, of: asyncio.AbstractEventLoop) -> Any:
        asked = ask(recording, of) if asked_first else None
        loop.close()
        return asked or ask(recording, of)

    async def begin() -> TransactionalAttempt:
        return TransactionalAttempt(MemoryStore(SystemClock()), cast(Any, None), None, cast(Any, None))

    attempt = loop.run_until_complete(begin())
    refused: list[str] = []

    def handler() -> None:
        with pytest.raises(TransactionClosed) as told:
            attempt.checkpoint(CheckpointReached(AttemptId("main", "book", 1, 1), 1, {}))
        refused.append(str(told.value))

    monkeypatch.setattr(transactional, "_LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", ask_and_close)
    assert attempt.run(handler) is None
    gc.collect()
    assert refused == [str(TransactionClosed())]


@pytest.mark.parametrize("times", [1, 2])
def test_what_was_waiting_for_its_turn_when_its_attempt_ended_is_no_surprise(times: int) -> None:
    """Its transaction is over by then, and nobody is left to hear of that."""
    surprises: list[Any] = []

    async def end_while_it_waits() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, said: surprises.append(said))
        recorder: Any = SimpleNamespace(turn=asyncio.Lock())
        attempt = TransactionalAttempt(MemoryStore(SystemClock()), recorder, None, cast(Any, None))
        await recorder.turn.acquire()
        recording = asyncio.create_task(attempt.record(CheckpointReached(AttemptId("main", "book", 1, 1), 1, {})))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(times):
            recording.cancel()
            await asyncio.sleep(0)
        attempt.end()
        recorder.turn.release()
        await asyncio.wait({recording})
        for _ in range(3):
            await asyncio.sleep(0)
        del recording
        gc.collect()

    asyncio.run(end_while_it_waits())
    assert surprises == []


# --- commits nobody knows of -----------------------------------------------------------------------------------------


def lost(times: int, *, applied: bool) -> Commit:
    """So many commits break, after they were applied or before."""
    left = [applied] * times

    def commit(committed: Callable[[], None]) -> None:
        if not left:
            return committed()
        if left.pop():
            committed()
        raise OutcomeUnknown

    return commit


@pytest.mark.parametrize("applied", [False, True], ids=["not applied", "applied"])
def test_a_commit_that_nobody_knows_of_is_settled_by_the_log_and_never_sent_again(store: Store, applied: bool) -> None:
    wf = Workflow("unknown", context=Notes)
    calls: list[int] = []

    @wf.sub_step
    def book(step: Step[Any, Notes], tx: Transaction) -> int:
        calls.append(step.attempt)
        insert(tx, "menu")
        step.context.said = "booked"
        return 7

    @wf.sub_step
    def behind(number: int = result(book)) -> int:
        return number

    meddled = MeddledTransactions(store, lost(1, applied=applied))
    job = run(wf, meddled)

    assert (job.status, job.result(behind), job.context.said) == ("completed", 7, "booked")
    assert effects(store) == ["menu"]
    assert calls == ([1] if applied else [1, 2])
    assert types_of(store, job.job_id).count("SubStepInterrupted") == (0 if applied else 1)
    assert not sent_beside(meddled) & {event.event_id for item in meddled.inside for event in item.events}


def test_a_lost_commit_that_ended_the_job_is_found_although_nobody_owns_the_job_any_more(store: Store) -> None:
    wf = Workflow("lost at the end")

    @wf.sub_step
    def book(tx: Transaction) -> None:
        insert(tx, "menu")

    job = run(wf, MeddledTransactions(store, lost(1, applied=True)))

    assert (job.status, sub_step_of(job, "book")["attempts"], effects(store)) == ("completed", 1, ["menu"])


def sent_beside(meddled: MeddledTransactions) -> set[str]:
    return {event.event_id for item in meddled.beside for event in item.events}


def test_lost_commits_neither_use_up_the_retries_nor_park_the_job(store: Store) -> None:
    wf = Workflow("lost often")

    @wf.sub_step(on_interrupt="hold")
    def book(tx: Transaction) -> None:
        insert(tx, "menu")

    job = run(wf, MeddledTransactions(store, lost(5, applied=False)))

    assert (job.status, effects(store)) == ("completed", ["menu"])
    causes = [event.data["cause"] for event in store.read(job.job_id) if event.type == "SubStepInterrupted"]
    assert causes == ["commit unknown"] * 5


@pytest.mark.parametrize("applied", [False, True], ids=["not applied", "applied"])
def test_a_checkpoint_whose_commit_nobody_knows_of_is_there_once_or_the_handler_begins_again(
    store: Store, applied: bool
) -> None:
    wf = Workflow("unknown checkpoint")
    running: list[int] = []

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        assert not running
        running.append(step.attempt)
        try:
            if step.cursor is None:
                insert(tx, "first half")
                step.checkpoint("half")
            insert(tx, "second half")
        finally:
            running.remove(step.attempt)

    job = run(wf, MeddledTransactions(store, lost(1, applied=applied)))

    assert (job.status, effects(store)) == ("completed", ["first half", "second half"])
    assert "LateOutcome" not in types_of(store, job.job_id)
    assert sub_step_of(job, "book")["attempts"] == (1 if applied else 2)


@others_write_meanwhile
def test_what_starts_with_a_commit_of_unknown_outcome_sees_nothing_of_what_came_behind_it(store: Store) -> None:
    """The log is read to find the commit: it may say more by then."""
    wf = Workflow("found late", context=Notes)
    seen: list[str] = []

    def lose(committed: Callable[[], None]) -> None:
        committed()
        if len(meddled.transactions) > 1:
            return
        (head,) = store.heads(HeadQuery())
        skipped = SubStepSkipped(phase="main", sub_step="skipped", attempt=1, cause="operator", reason="no", by="anna")
        somebody_else_appends(store, head.job_id, ContextChanged(set={"heard": "later"}, by="anna"), skipped)
        raise OutcomeUnknown

    @wf.sub_step
    def book(step: Step[Any, Notes], tx: Transaction) -> None:
        insert(tx, "menu")
        step.log("booked")

    @wf.sub_step(after=[book])
    def behind(step: Step[Any, Notes]) -> None:
        seen.append(step.context.heard)

    @wf.sub_step(after=[book])
    def skipped() -> None:
        seen.append("called although it was skipped")

    meddled = MeddledTransactions(store, lose)
    job = run(wf, meddled)

    assert (seen, job.context.heard, effects(store)) == ([""], "later", ["menu"])


@others_write_meanwhile
def test_a_condition_is_asked_anew_when_the_commit_that_it_was_asked_about_is_lost(store: Store) -> None:
    wf = Workflow("asked about nothing", context=Notes)
    book_in, confirm_in = wf.phase("book"), wf.phase("confirm")

    @book_in.sub_step(retry=AT_ONCE, optional=True)
    def book(step: Step[Any, Notes], tx: Transaction) -> None:
        if step.attempt > 1:
            raise Fatal("fully booked")
        step.context.said = "booked"

    @confirm_in.sub_step(when=lambda job: job.context.said == "booked")
    def confirm() -> None: ...

    job = run(wf, MeddledTransactions(store, lost(1, applied=False)))

    assert job.snapshot["phases"]["confirm"]["sub_steps"]["confirm"]["status"] == "skipped"
    assert job.context.said == ""


def test_lines_told_with_a_checkpoint_of_unknown_outcome_are_kept_once(store: Store) -> None:
    wf = Workflow("lines")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, "menu")
        step.log("half")
        step.checkpoint("half")

    job = run(wf, MeddledTransactions(store, lost(1, applied=True)))

    kept = [event.data["lines"] for event in store.read(job.job_id) if event.type == "SubStepLogged"]
    assert (job.status, kept) == ("completed", [["half"]])


def test_a_commit_that_is_lost_to_an_append_of_somebody_else_is_not_taken_for_done(store: Store) -> None:
    """The place where the completion would stand is taken, by something else."""
    wf = Workflow("lost to another", context=Notes)

    def lose(committed: Callable[[], None]) -> None:
        if not taken:
            (head,) = store.heads(HeadQuery())
            meddled.transactions[-1].roll_back()
            somebody_else_appends(store, head.job_id, ContextChanged(set={"heard": "stop"}, by="anna"))
            taken.append(head.job_id)
            raise OutcomeUnknown
        committed()

    @wf.sub_step
    def book(tx: Transaction) -> None:
        insert(tx, "menu")

    taken: list[str] = []
    meddled = MeddledTransactions(store, lose)
    job = run(wf, meddled)

    assert (job.status, job.context.heard, effects(store)) == ("completed", "stop", ["menu"])
    assert sub_step_of(job, "book")["attempts"] == 2


def test_a_store_that_is_away_when_the_transaction_would_begin_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steplog.engine.transactional._BEGIN_AGAIN_S", 0.001)
    wf = Workflow("away")

    @wf.sub_step(timeout="10ms")
    def book(tx: Transaction) -> None:
        insert(tx, "menu")

    class Away(MeddledTransactions):
        left = 30

        def begin(self, timeout_s: float | None = None) -> Any:
            if self.left:
                self.left -= 1
                raise StoreUnavailable
            return store.begin(DONE_S_MAX)

    job = run(wf, Away(store, lambda commit: commit()))

    assert (job.status, sub_step_of(job, "book")["attempts"], effects(store)) == ("completed", 1, ["menu"])


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_what_ended_before_a_transaction_is_not_late_when_that_ends(store: Store) -> None:
    """Its outcome waits for the one place to write, and its deadline comes meanwhile."""
    wf = Workflow("overtaken")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, "menu")
        deadline = load(store, step.job_id).state["phases"]["main"]["sub_steps"]["quick"]["deadline_at"]
        assert deadline is not None
        while SystemClock().now() <= deadline:
            threading.Event().wait(0.01)

    @wf.sub_step(deadline="1s")
    async def quick() -> None: ...

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "quick")["status"]) == ("completed", "completed")


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_condition_is_asked_again_about_the_context_that_a_transaction_leaves(store: Store) -> None:
    wf = Workflow("asked twice", context=Notes)
    asked = threading.Event()

    @wf.sub_step
    def book(step: Step[Any, Notes], tx: Transaction) -> None:
        insert(tx, "menu")
        assert asked.wait(DONE_S_MAX)
        step.context.said = "booked"

    @wf.sub_step
    async def quick() -> None: ...

    def is_booked(job: Job[Any, Notes]) -> bool:
        asked.set()
        return job.context.said == "booked"

    @wf.sub_step(after=[quick], when=is_booked)
    def confirm() -> None: ...

    job = run(wf, store)

    assert (job.status, sub_step_of(job, "confirm")["status"]) == ("completed", "completed")


@pytest.mark.parametrize("stays", ["in a statement", "outside"])
def test_a_handler_that_takes_too_long_is_rolled_back_and_tried_again(store: Store, stays: str) -> None:
    wf = Workflow("slow")
    released = threading.Event()

    @wf.sub_step(retry=AT_ONCE, timeout="200ms")
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, f"attempt {step.attempt}")
        if step.attempt > 1:
            return
        if stays == "in a statement":
            tx.execute(ENDLESS)
        while not step.cancelled:
            released.wait(0.01)
        insert(tx, "late")

    job = run(wf, store)

    (failed,) = [event for event in store.read(job.job_id) if event.type == "SubStepFailed"]
    assert (job.status, effects(store)) == ("completed", ["attempt 2"])
    assert failed.data["error"]["type"] == "HandlerTimeout"
    assert "LateOutcome" not in types_of(store, job.job_id)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_on_sqlite_a_transaction_without_a_timeout_has_the_stores(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steplog.eventstore.sqlite.TRANSACTION_S_MAX", 0.1)
    wf = Workflow("no timeout")

    @wf.sub_step(retry=AT_ONCE)
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, f"attempt {step.attempt}")
        while step.attempt == 1 and not step.cancelled:
            threading.Event().wait(0.01)

    job = run(wf, store)

    assert (job.status, effects(store)) == ("completed", ["attempt 2"])


def test_a_worker_that_stops_rolls_back_what_does_not_end_and_hands_the_job_back(store: Store) -> None:
    wf = Workflow("stopped")
    begun, let_go = threading.Event(), threading.Event()

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        insert(tx, f"attempt {step.attempt}")
        begun.set()
        if step.attempt == 1:
            let_go.wait(DONE_S_MAX)

    async def stopped() -> str:
        with Worker(store, settings=Settings(grace_s=0.05)) as worker:
            owned, new_job = prepare(worker, wf, recorded_input(wf, None), None)
            store.create(new_job)
            running = asyncio.create_task(worker.run(owned))
            await asyncio.to_thread(begun.wait, DONE_S_MAX)
            worker.stop(15)
            await asyncio.wait_for(running, DONE_S_MAX)
            return new_job.job_id

    job_id = asyncio.run(stopped())
    let_go.set()

    assert types_of(store, job_id)[-2:] == ["SubStepInterrupted", "JobReleased"]
    assert effects(store) == []
    assert resume_blocking(wf, job_id, store, by="anna").status == "completed"
    assert effects(store) == ["attempt 2"]
