"""Opening a SQLite file: made where asked for, refused where it cannot be trusted, durable or not at all."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from log_builder import LogBuilder
from process_program import Process

from steplog.eventstore import sqlite_connections
from steplog.eventstore.errors import (
    StoreDamaged,
    StoreError,
    StoreNewer,
    StoreNotMigrated,
    StoreUnavailable,
)
from steplog.eventstore.migrations import known_migrations
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.sqlite_connections import ROLE_RETRY_WRITES, Connections
from steplog.eventstore.store import HeadQuery
from steplog.testing.clock import VirtualClock

LOCK_PROGRAM = Path(__file__).with_name("lock_program.py")
MIGRATIONS = [migration.title for migration in known_migrations("sqlite")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path, busy_timeout_s=0.05)) as store:
        yield store


@pytest.fixture
def connections(path: Path) -> Iterator[Connections]:
    with closing(Connections(path, create=True, busy_timeout_s=10)) as connections:
        yield connections


def new_job(store: SQLiteStore) -> str:
    return store.create(LogBuilder(VirtualClock(store.now())).job())


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(statement)


# --- migrations ------------------------------------------------------------------------------------------------------


def test_new_file_is_made_and_migrated_at_the_first_use(store: SQLiteStore) -> None:
    assert store.heads(HeadQuery()) == []
    assert store.migrate(dry_run=True) == []


def test_migrating_names_what_it_applied(path: Path, store: SQLiteStore) -> None:
    assert store.migrate(dry_run=True) == MIGRATIONS
    assert not path.exists()
    assert store.migrate() == MIGRATIONS
    assert store.migrate() == []


def test_missing_file_is_refused_and_not_made_where_it_should_exist(path: Path) -> None:
    with pytest.raises(StoreNotMigrated, match=r"there is no database at .*log\.db"):
        SQLiteStore(path, create=False)
    assert not path.exists()


def test_file_that_is_not_up_to_date_is_refused_where_it_should_be(path: Path) -> None:
    path.touch()
    with closing(SQLiteStore(path, create=False)) as store:
        with pytest.raises(StoreNotMigrated, match="0001_log"):
            store.heads(HeadQuery())
        assert store.migrate() == MIGRATIONS
        assert store.heads(HeadQuery()) == []


def test_file_migrated_by_a_newer_steplog_is_refused(path: Path, store: SQLiteStore) -> None:
    store.migrate()
    change(path, "INSERT INTO schema_migrations VALUES (9999, 'from_the_future', '', '')")
    with closing(SQLiteStore(path)) as later, pytest.raises(StoreNewer, match="9999_from_the_future"):
        later.heads(HeadQuery())


def test_file_with_another_form_of_an_applied_migration_is_refused(path: Path, store: SQLiteStore) -> None:
    store.migrate()
    change(path, "UPDATE schema_migrations SET checksum = 'another' WHERE number = 2")
    with closing(SQLiteStore(path)) as later, pytest.raises(StoreError, match="0002_events_are_append_only"):
        later.heads(HeadQuery())


def test_migration_that_fails_half_way_leaves_nothing(path: Path, store: SQLiteStore) -> None:
    change(path, "CREATE TABLE requests (mine TEXT)")
    with pytest.raises(StoreError, match="requests already exists"):
        store.migrate()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("requests",)]


# --- refused ---------------------------------------------------------------------------------------------------------


def test_file_in_a_missing_directory_is_unavailable(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "nowhere" / "log.db")) as store, pytest.raises(StoreUnavailable):
        store.heads(HeadQuery())


def test_directory_is_unavailable(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path)) as store, pytest.raises(StoreUnavailable):
        store.heads(HeadQuery())


def test_file_that_is_no_database_is_damaged(path: Path) -> None:
    path.write_text("to whom it may concern\n" * 100)
    with closing(SQLiteStore(path)) as store, pytest.raises(StoreDamaged):
        store.heads(HeadQuery())


def test_closed_store_is_unavailable(store: SQLiteStore) -> None:
    new_job(store)
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.heads(HeadQuery())
    with pytest.raises(StoreUnavailable, match="closed"):
        new_job(store)


def test_sqlite_older_than_the_floor_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(StoreUnavailable, match=r"SQLite 3\.35 is needed"):
        SQLiteStore(path)


def test_write_beside_a_long_one_of_another_process_is_refused_and_can_be_sent_again(
    path: Path, store: SQLiteStore
) -> None:
    first = new_job(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            new_job(store)
        assert [head.job_id for head in store.heads(HeadQuery())] == [first]
    assert [head.job_id for head in store.heads(HeadQuery())] != [new_job(store)]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 10_000), ("query_only", 0)],
)
def test_writer_is_durable(connections: Connections, pragma: str, value: object) -> None:
    with connections.writing() as writer:
        assert writer.execute(f"PRAGMA {pragma}").fetchone() == (value,)


def test_reader_cannot_write(connections: Connections) -> None:
    with connections.writing() as writer:
        writer.execute("CREATE TABLE t (x)")
    with pytest.raises(StoreUnavailable, match="read-only"), connections.reading() as reader:
        reader.execute("INSERT INTO t VALUES (1)")
    with connections.reading() as reader:
        assert reader.execute("SELECT * FROM t").fetchall() == []


@pytest.mark.parametrize("pragma", ["journal_mode", "synchronous", "busy_timeout", "query_only", "wal_autocheckpoint"])
def test_setting_that_does_not_take_is_refused(
    path: Path, connections: Connections, monkeypatch: pytest.MonkeyPatch, pragma: str
) -> None:
    with connections.writing():
        pass
    connect = sqlite3.connect

    class Stubborn(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 'something else'" if pragma in sql else sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Stubborn))
    stubborn = Connections(path, create=True, busy_timeout_s=10)
    with closing(stubborn), pytest.raises(StoreUnavailable, match=pragma), stubborn.reading(), stubborn.writing():
        pass


@pytest.mark.parametrize(("code", "tries"), [(sqlite3.SQLITE_BUSY, 3), (sqlite3.SQLITE_IOERR, 1)])
def test_switch_to_wal_that_meets_another_ones_is_tried_again(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, code: int, tries: int
) -> None:
    connect, tried = sqlite3.connect, list[str]()

    class Contended(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "journal_mode" in sql:
                tried.append(sql)
                if len(tried) < 3:
                    error = sqlite3.OperationalError("refused")
                    error.sqlite_errorcode = code
                    raise error
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Contended))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(StoreUnavailable) if tries == 1 else nullcontext(), connections.writing():
        pass
    assert len(tried) == tries


def test_switch_to_wal_beside_a_long_read_is_refused_in_the_end(path: Path, store: SQLiteStore) -> None:
    change(path, "CREATE TABLE t (x)")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        with pytest.raises(StoreUnavailable, match="locked"):
            new_job(store)


def test_write_that_cannot_have_the_file_does_not_begin(path: Path, connections: Connections) -> None:
    def write(beside: Connections) -> None:
        with beside.writing():
            pytest.fail("it began beside another write, on what that one may change")

    with closing(Connections(path, create=True, busy_timeout_s=0.05)) as beside:
        with beside.writing():
            pass
        with connections.writing(), pytest.raises(StoreUnavailable):
            write(beside)


def test_write_whose_body_fails_is_not_stored(connections: Connections) -> None:
    def insert_and_fail() -> None:
        with connections.writing() as writer:
            writer.execute("INSERT INTO t VALUES (1)")
            raise KeyboardInterrupt

    with connections.writing() as writer:
        writer.execute("CREATE TABLE t (x)")
    with pytest.raises(KeyboardInterrupt):
        insert_and_fail()
    with connections.writing() as writer:
        assert writer.execute("SELECT * FROM t").fetchall() == []


# --- who checkpoints -------------------------------------------------------------------------------------------------


def autocheckpoint(connections: Connections) -> int:
    with connections.writing() as writer:
        (pages,) = writer.execute("PRAGMA wal_autocheckpoint").fetchone()
    return int(pages)


def test_only_process_on_a_file_checkpoints(connections: Connections) -> None:
    assert autocheckpoint(connections) == 1000


def test_second_opening_of_the_same_process_checkpoints_too(path: Path, connections: Connections) -> None:
    assert autocheckpoint(connections) == 1000
    with closing(Connections(path, create=True, busy_timeout_s=10)) as second:
        assert autocheckpoint(second) == 1000
    assert autocheckpoint(connections) == 1000


def test_second_process_does_not_checkpoint_until_the_first_is_gone(
    connections: Connections, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connections, "WAL_RESET_FIXED", (99, 0, 0))
    with Process(LOCK_PROGRAM, path.with_name("log.db-workers")) as other, caplog.at_level(logging.WARNING, "steplog"):
        assert other.ask("take", 0)
        assert autocheckpoint(connections) == 0
    assert ["WAL" in record.message for record in caplog.records] == [True]
    assert {autocheckpoint(connections) for _ in range(ROLE_RETRY_WRITES)} == {0, 1000}
    assert autocheckpoint(connections) == 1000


def test_second_process_is_not_warned_where_sqlite_is_sound(
    connections: Connections, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connections, "WAL_RESET_FIXED", (3, 0, 0))
    with Process(LOCK_PROGRAM, path.with_name("log.db-workers")) as other, caplog.at_level(logging.WARNING, "steplog"):
        assert other.ask("take", 0)
        autocheckpoint(connections)
    assert caplog.records == []
