"""A database restored from an older copy under a living owner: the job parks, and nothing of the lost tail returns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from steplog import OwnershipLost, Step, Workflow
from steplog.engine.jobs import resume_blocking
from steplog.engine.replay import replay
from steplog.eventstore.events import Event
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store


@dataclass
class Restorable:
    """A store, how to take a copy of it, and how to put that back."""

    store: Store
    take_copy: Callable[[], None]
    restore: Callable[[], None]


@pytest.fixture(params=["sqlite", "postgres"])
def restorable(request: pytest.FixtureRequest) -> Restorable:
    found: Restorable = request.getfixturevalue(f"restorable_{request.param}")
    return found


@pytest.fixture
def restorable_sqlite(sqlite_store: SQLiteStore, tmp_path: Path) -> Restorable:
    def copy(source: str, target: str) -> None:
        with closing(sqlite3.connect(tmp_path / source)) as old, closing(sqlite3.connect(tmp_path / target)) as new:
            old.backup(new)

    return Restorable(sqlite_store, lambda: copy("steplog.db", "backup.db"), lambda: copy("backup.db", "steplog.db"))


@pytest.fixture
def restorable_postgres(postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> Restorable:
    tables = ["events", "jobs", "snapshots", "job_keys", "requests"]

    @contextmanager
    def connected() -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute(sql.SQL("set search_path to {}").format(sql.Identifier(postgres_schema)))
            yield connection

    def take_copy() -> None:
        with connected() as connection:
            for table in tables:
                copy = sql.Identifier(f"copy_of_{table}")
                connection.execute(sql.SQL("create table {} as table {}").format(copy, sql.Identifier(table)))

    def restore() -> None:
        with connected() as connection:
            connection.execute("alter table events disable trigger user")
            for table in tables:
                copy = sql.Identifier(f"copy_of_{table}")
                connection.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
                # A column that is generated is made anew, as it is from a dump.
                names = connection.execute(
                    "select column_name from information_schema.columns"
                    " where table_schema = current_schema and table_name = %s and is_generated = 'NEVER'",
                    [table],
                ).fetchall()
                columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in names)
                insert = sql.SQL("insert into {} ({columns}) select {columns} from {}")
                connection.execute(insert.format(sql.Identifier(table), copy, columns=columns))
            connection.execute("alter table events enable trigger user")

    return Restorable(postgres_store, take_copy, restore)


def chain(at_second: Callable[[Step], None], at_fourth: Callable[[Step], None]) -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("chain")

    @wf.sub_step
    def first(step: Step) -> str:
        return step.name

    @wf.sub_step(after=[first])
    def second(step: Step) -> str:
        at_second(step)
        return step.name

    @wf.sub_step(after=[second])
    def third(step: Step) -> str:
        return step.name

    @wf.sub_step(after=[third])
    def fourth(step: Step) -> str:
        at_fourth(step)
        return step.name

    return wf


def ignore(step: Step) -> None:
    pass


def test_a_job_whose_log_went_backwards_parks_with_what_was_lost(restorable: Restorable) -> None:
    """Mutants: a head behind expected is a conflict; what is in memory is renumbered onto the older log."""
    store = restorable.store
    kept: list[Event] = []
    lost: list[Event] = []

    def take_copy(step: Step) -> None:
        restorable.take_copy()
        kept.extend(store.read(step.job_id))

    def restore(step: Step) -> None:
        lost.extend(list(store.read(step.job_id))[len(kept) :])
        restorable.restore()

    job = chain(take_copy, restore).run(store=store)

    log = list(store.read(job.job_id))
    assert job.status == "parked"
    assert log[: len(kept)] == kept
    assert [event.type for event in log[len(kept) :]] == ["JobClaimed", "SubStepInterrupted", "JobParked"]
    assert log[-1].data["reason"] == "log regressed"
    assert (log[-1].data["lost_version"], log[-1].data["lost_hash"]) == (lost[-1].version, lost[-1].hash)
    assert not {event.event_id for event in lost} & {event.event_id for event in log}
    assert store.head(job.job_id).worker_id is None
    assert list(replay(store, job.job_id))[-1][1]["status"] == "parked"


def test_a_parked_job_is_resumed_from_the_older_log(restorable: Restorable) -> None:
    store = restorable.store
    restores = [restorable.restore]
    ran: list[str] = []

    def restore_once(step: Step) -> None:
        ran.append(step.name)
        if restores:
            restores.pop()()

    def take_copy_once(step: Step) -> None:
        ran.append(step.name)
        if restores:
            restorable.take_copy()

    wf = chain(take_copy_once, restore_once)
    parked = wf.run(store=store)
    ended = resume_blocking(wf, parked.job_id, store, by="anna")

    assert (parked.status, ended.status) == ("parked", "completed")
    assert ran == ["second", "fourth", "second", "fourth"]
    assert [event.version for event in store.read(ended.job_id)] == list(range(1, ended.version + 1))


def test_a_job_that_somebody_else_has_on_the_older_log_is_left_to_them(restorable: Restorable) -> None:
    store = restorable.store

    def end_it_elsewhere(step: Step) -> None:
        restorable.restore()
        store.retire_worker(store.head(step.job_id).worker_id or "")

    wf = chain(lambda step: restorable.take_copy(), end_it_elsewhere)
    with pytest.raises(OwnershipLost):
        wf.run(store=store)
