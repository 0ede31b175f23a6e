"""A handler's transaction on SQLite alone: it stops every other writer, who waits; commits that fail; constraints."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from append_witness import owned_jobs
from process_program import Process
from transactional_stores import effects, make_table

from steplog import Step, Transaction, Workflow
from steplog.eventstore.errors import OutcomeUnknown, StatementFailed, StoreUnavailable, TransactionClosed
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Code

PROGRAM = Path(__file__).with_name("sqlite_program.py")


class FailingCommits(sqlite3.Connection):
    """Commits that fail so many times, after or before they took effect."""

    left = 0
    takes_effect = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql != "COMMIT" or not type(self).left:
            return super().execute(sql, *parameters)
        type(self).left -= 1
        if self.takes_effect:
            super().execute(sql)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=FailingCommits))
    with closing(SQLiteStore(path, busy_timeout_s=0.1)) as store:
        make_table(store)
        yield store
    FailingCommits.left = 0


@pytest.mark.parametrize("takes_effect", [False, True])
def test_a_commit_that_fails_is_unknown_and_lets_others_write(store: SQLiteStore, takes_effect: bool) -> None:
    job, other = owned_jobs(store, 2)
    transaction = store.begin()
    transaction.execute("insert into effects values ('menu')")
    assert transaction.append(job.next("done")).code is Code.STORED
    FailingCommits.takes_effect, FailingCommits.left = takes_effect, 1
    with pytest.raises(OutcomeUnknown, match="disk I/O error"):
        transaction.commit()
    assert store.append([other.next("meanwhile")])[0].code is Code.STORED
    assert (store.head(job.id).version, effects(store)) == ((2, ["menu"]) if takes_effect else (1, []))


@pytest.mark.parametrize("takes_effect", [False, True])
def test_a_sub_step_whose_commit_fails_has_its_effect_once(store: SQLiteStore, takes_effect: bool) -> None:
    wf = Workflow("failing disk")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        tx.execute("insert into effects values (%s)", [f"attempt {step.attempt}"])
        if step.attempt == 1:
            FailingCommits.takes_effect, FailingCommits.left = takes_effect, 1

    job = wf.run(store=store)

    assert (job.status, effects(store)) == ("completed", ["attempt 1"] if takes_effect else ["attempt 2"])


def test_foreign_keys_that_the_tables_declare_hold(store: SQLiteStore) -> None:
    transaction = store.begin()
    transaction.execute("create table dishes (id integer primary key)")
    transaction.execute("create table prices (dish integer references dishes (id))")
    with pytest.raises(StatementFailed, match="FOREIGN KEY"):
        transaction.execute("insert into prices values (1)")
    transaction.roll_back()


def test_a_commit_that_a_deferred_constraint_refuses_is_a_failure_of_the_handlers(store: SQLiteStore) -> None:
    (job,) = owned_jobs(store, 1)
    transaction = store.begin()
    transaction.execute("create table dishes (id integer primary key)")
    transaction.execute("create table prices (dish integer references dishes (id) deferrable initially deferred)")
    transaction.execute("insert into prices values (1)")
    assert transaction.append(job.next("done")).code is Code.STORED
    with pytest.raises(StatementFailed, match="refused at commit: FOREIGN KEY"):
        transaction.commit()
    assert store.head(job.id).version == 1


@pytest.mark.parametrize("value", [1 << 70, "lone \ud800", object()])
def test_a_value_that_sqlite_cannot_hold_is_refused_as_a_statement(store: SQLiteStore, value: object) -> None:
    transaction = store.begin()
    with pytest.raises(StatementFailed):
        transaction.execute("insert into effects values (%s)", [value])
    transaction.execute("insert into effects values ('menu')")
    transaction.commit()
    assert effects(store) == ["menu"]


def test_two_statements_in_one_are_refused(store: SQLiteStore) -> None:
    transaction = store.begin()
    with pytest.raises(StatementFailed, match="one statement"):
        transaction.execute("insert into effects values ('menu'); commit")
    transaction.roll_back()
    assert effects(store) == []


def test_another_process_writes_once_the_transaction_is_over(path: Path, store: SQLiteStore) -> None:
    (job,) = owned_jobs(store, 1)
    with Process(PROGRAM, path) as other:
        other.ask("create")
        transaction = store.begin()
        other.send("append_locked", job.id, 2)
        transaction.execute("insert into effects values ('menu')")
        assert transaction.append(job.next("done")).code is Code.STORED
        transaction.commit()
        assert other.answer() == 4
    assert effects(store) == ["menu"]


def test_a_file_that_another_process_keeps_locked_cannot_be_begun_on_and_is_free_for_the_next(
    path: Path, store: SQLiteStore
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.begin()
        other.execute("ROLLBACK")
    transaction = store.begin()
    transaction.roll_back()
    with pytest.raises(TransactionClosed):
        transaction.execute("insert into effects values ('late')")
