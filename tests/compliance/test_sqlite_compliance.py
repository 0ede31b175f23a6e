"""The SQLite store is a store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from compliance.store_compliance import StoreCompliance

from steplog.eventstore.rows import Row
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store


class SQLiteHarness:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[Store] = []
        self.store = self.reopen()
        self.store.migrate()
        with closing(sqlite3.connect(path)) as raw, raw:
            raw.execute("CREATE TABLE effects (name text PRIMARY KEY)")

    def reopen(self) -> Store:
        self.opened.append(SQLiteStore(self.path))
        return self.opened[-1]

    def end_process(self, store: Store, worker_id: str) -> None:
        store.close()

    def rewrite_rows(self, job_id: str, change: Callable[[list[Row]], list[Row]]) -> None:
        with closing(sqlite3.connect(self.path)) as raw, raw:
            found = raw.execute(
                "SELECT version, event_id, type, schema_version, recorded_at, data, hash FROM events"
                " WHERE job_id = ? ORDER BY version",
                (job_id,),
            )
            rows = change([Row(*row) for row in found])
            raw.execute("DROP TRIGGER events_refuse_delete")
            raw.execute("DELETE FROM events WHERE job_id = ?", (job_id,))
            raw.executemany(
                "INSERT INTO events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)"
                " VALUES (?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?)",
                [(job_id, *row) for row in rows],
            )

    def forbidden_statements(self, job_id: str) -> list[Callable[[], object]]:
        statements = [
            "UPDATE events SET data = '{}' WHERE job_id = ?",
            "UPDATE events SET version = version + 100 WHERE job_id = ?",
            "DELETE FROM events WHERE job_id = ?",
        ]
        return [partial(self._execute, statement, job_id) for statement in statements]

    def _execute(self, statement: str, job_id: str) -> None:
        with closing(sqlite3.connect(self.path)) as raw, raw:
            raw.execute(statement, (job_id,))


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[SQLiteHarness]:
    harness = SQLiteHarness(tmp_path / "log.db")
    yield harness
    for store in harness.opened:
        store.close()


class TestSQLiteStore(StoreCompliance):
    pass
