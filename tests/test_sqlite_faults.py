"""What goes wrong below SQLite: typed errors, nothing reported stored that is not, nothing stored twice."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from log_builder import LogBuilder
from process_program import Process

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, OutcomeUnknown, StoreError, StoreUnavailable
from steplog.eventstore.events import Event
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.sqlite_errors import translate
from steplog.eventstore.store import Append, Code, HeadQuery
from steplog.testing.clock import VirtualClock

PROGRAM = Path(__file__).with_name("sqlite_program.py")
PRIMARY_CODES = sorted(
    value for name, value in vars(sqlite3).items() if name.startswith("SQLITE_") and type(value) is int and value < 100
)
FLIPS = 100


class Faulty(sqlite3.Connection):
    """Fails at a statement when told to, after or before it took effect."""

    fail_at: str | None = None
    takes_effect = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if type(self).fail_at == sql:
            type(self).fail_at = None
            if self.takes_effect:
                super().execute(sql, *parameters)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return super().execute(sql, *parameters)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Faulty))
    with closing(SQLiteStore(path)) as store:
        yield store
    Faulty.fail_at = None


def next_append(store: SQLiteStore, values: int = 1) -> Append:
    """The owner's next append of a fresh job."""
    build = LogBuilder(VirtualClock())
    job, worker = build.job(), build.worker()
    store.create(job)
    store.register_worker(worker, 60)
    claim = store.claim(job.job_id, worker.worker_id, Position(), build.claiming())
    return build.append(job.job_id, store.head(job.job_id).position, claim, *range(values))


@pytest.mark.parametrize("takes_effect", [False, True])
def test_commit_that_fails_is_unknown_and_sent_again_is_stored_once(store: SQLiteStore, takes_effect: bool) -> None:
    item = next_append(store)
    Faulty.takes_effect, Faulty.fail_at = takes_effect, "COMMIT"
    with pytest.raises(OutcomeUnknown, match="disk I/O error"):
        store.append([item])
    assert [answer.code for answer in store.append([item])] == [Code.STORED]
    assert [event.version for event in store.read(item.job_id)] == [1, 2, 3]


def test_what_was_stored_before_is_acknowledged_only_behind_a_commit_that_writes(
    path: Path, store: SQLiteStore
) -> None:
    """Mutant: a resend ends in a commit that changes nothing, which flushes nothing."""
    item = next_append(store)
    Faulty.takes_effect, Faulty.fail_at = True, "COMMIT"
    with pytest.raises(OutcomeUnknown):
        store.append([item])
    with closing(sqlite3.connect(path)) as observer:
        before = observer.execute("PRAGMA data_version").fetchone()
        assert [answer.code for answer in store.append([item])] == [Code.STORED]
        assert observer.execute("PRAGMA data_version").fetchone() != before


def test_a_commit_that_finds_all_stored_in_a_file_just_opened_writes_too(path: Path) -> None:
    """Mutant: a process that died before its commit was flushed leaves a key that the next one acknowledges."""
    job = LogBuilder(VirtualClock()).job(key="a")
    with closing(SQLiteStore(path)) as first:
        first.create(job)
    with closing(SQLiteStore(path)) as second, closing(sqlite3.connect(path)) as observer:
        second.head(job.job_id)
        before = observer.execute("PRAGMA data_version").fetchone()
        assert second.create(job) == job.job_id
        assert observer.execute("PRAGMA data_version").fetchone() != before


def test_write_that_cannot_begin_is_known_not_to_be_stored(store: SQLiteStore) -> None:
    item = next_append(store)
    Faulty.takes_effect, Faulty.fail_at = False, "BEGIN IMMEDIATE"
    with pytest.raises(StoreUnavailable) as refused:
        store.append([item])
    assert not isinstance(refused.value, OutcomeUnknown)
    assert store.head(item.job_id).position == item.expected


def test_registration_whose_commit_failed_can_be_sent_again(store: SQLiteStore) -> None:
    store.migrate()
    worker = LogBuilder(VirtualClock()).worker()
    for takes_effect in (False, True):
        Faulty.takes_effect, Faulty.fail_at = takes_effect, "COMMIT"
        with pytest.raises(OutcomeUnknown):
            store.register_worker(worker, 60)
    store.register_worker(worker, 60)
    assert [(known.identity, known.state) for known in store.workers()] == [(worker, "alive")]


def test_registration_that_failed_keeps_no_byte_from_others(path: Path, store: SQLiteStore) -> None:
    store.migrate()
    Faulty.takes_effect, Faulty.fail_at = False, "COMMIT"
    with pytest.raises(OutcomeUnknown):
        store.register_worker(LogBuilder(VirtualClock()).worker(), 60)
    with Process(PROGRAM, path) as other:
        job_id = other.ask("create")
        owner = other.ask("claim", job_id)
    assert store.head(job_id).worker_id == owner


def test_row_that_cannot_be_read_is_named_and_those_before_it_are_read(path: Path, store: SQLiteStore) -> None:
    item = next_append(store, 5)
    store.append([item])
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DROP TRIGGER events_refuse_update")
        raw.execute("UPDATE events SET type = CAST(x'ff' AS TEXT) WHERE version = 4")
    seen = list[int]()
    with pytest.raises(DamagedLog, match="UTF-8") as refused:
        seen.extend(event.version for event in store.read(item.job_id))
    assert (refused.value.job_id, refused.value.version, seen) == (item.job_id, 4, [1, 2, 3])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = NULL WHERE version = 4",
        "UPDATE events SET hash = NULL WHERE version = 4",
        "UPDATE events SET hash = x'00ff' WHERE version = 4",
        "UPDATE events SET schema_version = NULL WHERE version = 4",
        "UPDATE events SET recorded_at = 7 WHERE version = 4",
    ],
)
def test_row_with_a_value_of_another_kind_is_damaged(path: Path, store: SQLiteStore, statement: str) -> None:
    item = next_append(store, 5)
    store.append([item])
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DROP TRIGGER events_refuse_update")
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'events'")
        raw.execute("PRAGMA writable_schema = RESET")
        raw.execute(statement)
    with closing(SQLiteStore(path)) as reopened, pytest.raises(DamagedLog) as refused:
        list(reopened.read(item.job_id))
    assert refused.value.version == 4


@pytest.mark.parametrize("code", PRIMARY_CODES)
def test_every_error_of_sqlite_has_a_type_of_ours(code: int) -> None:
    error = sqlite3.OperationalError("what SQLite said")
    error.sqlite_errorcode = code | 3 << 8
    translated = translate(error)
    assert isinstance(translated, StoreError)
    assert "what SQLite said" in str(translated)


def test_flipped_bits_are_refused_by_type_and_never_read_as_something_else(tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    with closing(SQLiteStore(whole)) as store:
        items = [next_append(store, 60) for _ in range(12)]
        store.append(items)
        logs = {item.job_id: list(store.read(item.job_id)) for item in items}
    source = random.Random(7)
    refused = sum(_is_refused(_flipped(whole, tmp_path / f"{trial}.db", source), logs) for trial in range(FLIPS))
    assert refused > FLIPS // 10


def _flipped(whole: Path, damaged: Path, source: random.Random) -> Path:
    copy(whole, damaged)
    content = bytearray(damaged.read_bytes())
    content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    damaged.write_bytes(content)
    return damaged


def _is_refused(path: Path, logs: dict[str, list[Event]]) -> bool:
    refused = False
    with closing(SQLiteStore(path, create=False)) as store:
        for job_id, log in logs.items():
            try:
                store.heads(HeadQuery())
                assert list(store.read(job_id)) == log
                store.append_locked(job_id, Position(), LogBuilder(VirtualClock(store.now())).proposing())
            except StoreError:
                refused = True
    return refused
