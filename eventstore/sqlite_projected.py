"""Projections in a SQLite file: each change is one transaction of the one writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import orjson

from steplog.eventstore.errors import StoreError
from steplog.eventstore.projected import Change, Checkpoint, Document, JobVersion, Move, Quarantined, StepRow

_DOCUMENTS = """
SELECT key, version, document FROM projected
WHERE projection = ? AND generation = ? AND key IN (SELECT value FROM json_each(?))
"""

_PAGE = """
SELECT key, version, document FROM projected
WHERE projection = ? AND generation = ? AND key > ? ORDER BY key LIMIT ?
"""

_JOBS = """
SELECT page.job_id, page.version, projected.version
FROM (SELECT job_id, version FROM jobs WHERE job_id > ? ORDER BY job_id LIMIT ?) AS page
LEFT JOIN projected
    ON projected.projection = ? AND projected.generation = ? AND projected.key = page.job_id
ORDER BY page.job_id
"""

_PUT = """
INSERT INTO projected (projection, generation, key, version, document) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (projection, generation, key) DO UPDATE SET version = excluded.version, document = excluded.document
"""

_PUT_ROW = """
INSERT INTO registration_job_steps (job_id, step_number, status, sub_step_progress, error_message, updated_at)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id, step_number) DO UPDATE
SET status = excluded.status, sub_step_progress = excluded.sub_step_progress,
    error_message = excluded.error_message, updated_at = excluded.updated_at
"""

_ROWS = """
SELECT job_id, step_number, status, sub_step_progress, error_message, updated_at FROM registration_job_steps
WHERE (job_id, step_number) > (?, ?) ORDER BY job_id, step_number LIMIT ?
"""

_REMOVE = """
DELETE FROM projected WHERE projection = :name AND generation = :generation AND key IN (
    SELECT key FROM projected WHERE projection = :name AND generation = :generation ORDER BY key LIMIT :limit
)
"""

_QUARANTINE = """
INSERT INTO quarantine (projection, job_id, version, error, since) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (projection, job_id) DO UPDATE SET version = excluded.version, error = excluded.error
"""


class _Late(Exception):
    """A checkpoint is not what it should be."""


class SQLiteProjected:
    """Reads and writes through the store's own connections."""

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[sqlite3.Connection]],
        writing: Callable[[], AbstractContextManager[sqlite3.Connection]],
        now: Callable[[], str],
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._now = now

    def checkpoints(self) -> dict[str, Checkpoint]:
        with self._reading() as connection:
            rows = connection.execute("SELECT name, checkpoint FROM projections ORDER BY name")
            return {name: orjson.loads(text) for name, text in rows}

    def documents(self, name: str, generation: int, keys: Sequence[str]) -> dict[str, Document]:
        with self._reading() as connection:
            rows = connection.execute(_DOCUMENTS, (name, generation, _json(list(keys))))
            return {row[0]: _document(row) for row in rows}

    def page(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[Document]:
        with self._reading() as connection:
            return [_document(row) for row in connection.execute(_PAGE, (name, generation, after, limit))]

    def jobs(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[JobVersion]:
        with self._reading() as connection:
            return [JobVersion(*row) for row in connection.execute(_JOBS, (after, limit, name, generation))]

    def store(self, change: Change) -> bool:
        _own_table_only(change.table)
        try:
            with self._writing() as connection:
                for move in change.moves:
                    _move(connection, move, self._now())
                connection.executemany(
                    _PUT,
                    [
                        (change.name, change.generation, document.key, document.version, _json(document.data))
                        for document in change.documents
                    ],
                )
                connection.executemany(_PUT_ROW, change.rows)
                connection.executemany(_QUARANTINE, [(*job, self._now()) for job in change.quarantined])
        except _Late:
            return False
        return True

    def remove(self, name: str, generation: int, limit: int = 1000) -> int:
        with self._writing() as connection:
            return connection.execute(_REMOVE, {"name": name, "generation": generation, "limit": limit}).rowcount

    def quarantined(self) -> list[Quarantined]:
        query = "SELECT projection, job_id, version, error FROM quarantine ORDER BY projection, job_id"
        with self._reading() as connection:
            return [Quarantined(*row) for row in connection.execute(query)]

    def release(self, name: str) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM quarantine WHERE projection = ?", (name,))

    def step_rows(self, table: str | None = None, after: tuple[str, int] = ("", 0), limit: int = 500) -> list[StepRow]:
        _own_table_only(table)
        with self._reading() as connection:
            return [StepRow(*row) for row in connection.execute(_ROWS, (*after, limit))]


def _own_table_only(table: str | None) -> None:
    if table is not None:
        raise StoreError(f"in SQLite the table is registration_job_steps in the store's own file (asked for: {table})")


def _move(connection: sqlite3.Connection, move: Move, now: str) -> None:
    before, after = (None if value is None else _json(value) for value in move[1:])
    if before is None:
        moved = connection.execute(
            "INSERT INTO projections (name, checkpoint, updated_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (move.name, after, now),
        )
    elif after is None:
        moved = connection.execute("DELETE FROM projections WHERE name = ? AND checkpoint = ?", (move.name, before))
    else:
        moved = connection.execute(
            "UPDATE projections SET checkpoint = ?, updated_at = ? WHERE name = ? AND checkpoint = ?",
            (after, now, move.name, before),
        )
    if not moved.rowcount:
        raise _Late


def _document(row: Sequence[Any]) -> Document:
    key, version, text = row
    return Document(key, version, orjson.loads(text))


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
