"""The feed where the log behind a cursor is another one, where it is long, and for those who may only read."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from log_builder import LogBuilder
from psycopg import sql
from psycopg.conninfo import make_conninfo

from steplog.eventstore.errors import CursorRefused, FeedMoved
from steplog.eventstore.feed import as_cursor, parts_of
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.testing.clock import VirtualClock

_POSTGRES = (str, str, str, str, str, str, int)


def test_cursor_of_another_server_or_timeline_says_that_the_log_moved(postgres_store: PostgresStore) -> None:
    system, timeline, *place = parts_of(postgres_store.feed_end(), "postgres", *_POSTGRES)
    for other in ([f"{system}1", timeline], [system, "0000002A"]):
        with pytest.raises(FeedMoved):
            postgres_store.feed(as_cursor("postgres", *other, *place))
    assert postgres_store.feed(as_cursor("postgres", system, timeline, *place)).entries == []


@pytest.mark.parametrize(("place", "value"), [(2, "1; drop"), (3, "x"), (4, "-1"), (5, "no job")])
def test_cursor_that_was_tampered_with_is_refused(postgres_store: PostgresStore, place: int, value: str) -> None:
    parts = parts_of(postgres_store.feed_end(), "postgres", *_POSTGRES)
    parts[place] = value
    with pytest.raises(CursorRefused):
        postgres_store.feed(as_cursor("postgres", *parts))


def test_file_restored_from_a_backup_says_that_the_log_moved(tmp_path: Path) -> None:
    build = LogBuilder(VirtualClock())
    with closing(SQLiteStore(tmp_path / "log.db")) as store:
        store.create(build.job())
        store.backup(tmp_path / "backup.db")
        store.create(build.job())
        ahead = store.feed_end()
    with closing(SQLiteStore(tmp_path / "backup.db")) as restored:
        with pytest.raises(FeedMoved):
            restored.feed(ahead)
        restored.create(build.job())
        with pytest.raises(FeedMoved):  # there is an event at that position, another one
            restored.feed(ahead)
        assert restored.feed(restored.feed_end()).entries == []


def test_copy_of_the_file_goes_on_from_the_cursor(tmp_path: Path) -> None:
    build = LogBuilder(VirtualClock())
    with closing(SQLiteStore(tmp_path / "log.db")) as store:
        store.create(build.job())
        cursor = store.feed_end()
    shutil.copy(tmp_path / "log.db", tmp_path / "copy.db")
    with closing(SQLiteStore(tmp_path / "copy.db")) as copy:
        assert copy.feed(cursor).entries == []


def test_who_may_only_read_has_the_feed(postgres_dsn: str, postgres_store: Store, postgres_schema: str) -> None:
    postgres_store.create(LogBuilder(VirtualClock()).job())
    reader = make_conninfo(postgres_dsn, options="-c role=steplog_reader")
    with closing(PostgresStore(reader, schema=postgres_schema)) as store:
        page = store.feed()
        assert len(page.entries) == 1
        assert store.feed(page.cursor).entries == []


def test_transactions_that_stay_open_add_nothing_to_what_is_read(
    postgres_dsn: str, postgres_store: PostgresStore, postgres_schema: str
) -> None:
    """The page behind an old snapshot is found by the transactions' index alone."""
    build = LogBuilder(VirtualClock())
    postgres_store.create_many([build.job() for _ in range(20)])
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("set enable_seqscan = off")
        connection.execute(sql.SQL("set search_path = {}").format(sql.Identifier(postgres_schema)))
        plan = connection.execute(
            "explain select xid from events where xid = any (array(select pg_snapshot_xip('5:9:5,7'::pg_snapshot)))"
            " union all select xid from events where xid >= pg_snapshot_xmax('5:9:5,7'::pg_snapshot)"
        ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert text.count("events_by_xid") == 2
    assert "Seq Scan" not in text
