"""The table of data keys in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager

from steplog.eventstore.data_keys import DataKey

_KEY = "SELECT job_id, wrapped, erased_at FROM data_keys WHERE job_id = ?"
_ADD = "INSERT INTO data_keys (job_id, wrapped) VALUES (?, ?) ON CONFLICT (job_id) DO NOTHING"
_REWRAP = "UPDATE data_keys SET wrapped = ? WHERE job_id = ? AND wrapped = ?"
_AFTER = "SELECT job_id, wrapped, erased_at FROM data_keys WHERE job_id > ? ORDER BY job_id LIMIT ?"
_ERASE = """
INSERT INTO data_keys (job_id, wrapped, erased_at) VALUES (:job_id, NULL, :now)
ON CONFLICT (job_id) DO UPDATE SET wrapped = NULL, erased_at = excluded.erased_at WHERE wrapped IS NOT NULL
"""

Opened = Callable[[], AbstractContextManager[sqlite3.Connection]]


def insert(connection: sqlite3.Connection, job_id: str, wrapped: str) -> None:
    connection.execute(_ADD, (job_id, wrapped))


def erase(connection: sqlite3.Connection, job_id: str, now: str) -> None:
    """Destroy the job's key, and let it have none any more. What stood on the page is overwritten, not only freed."""
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(_ERASE, {"job_id": job_id, "now": now})


class SQLiteDataKeys:
    """The keys in a SQLite file."""

    def __init__(self, reading: Opened, writing: Opened) -> None:
        self._reading = reading
        self._writing = writing

    def find(self, job_id: str) -> DataKey | None:
        with self._reading() as connection:
            row = connection.execute(_KEY, (job_id,)).fetchone()
            return DataKey(*row) if row else None

    def add(self, job_id: str, wrapped: str) -> DataKey:
        with self._writing() as connection:
            insert(connection, job_id, wrapped)
            return DataKey(*connection.execute(_KEY, (job_id,)).fetchone())

    def rewrap(self, before: DataKey, wrapped: str) -> bool:
        with self._writing() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            return connection.execute(_REWRAP, (wrapped, before.job_id, before.wrapped)).rowcount == 1

    def after(self, job_id: str = "", limit: int = 500) -> list[DataKey]:
        with self._reading() as connection:
            return [DataKey(*row) for row in connection.execute(_AFTER, (job_id, limit))]
