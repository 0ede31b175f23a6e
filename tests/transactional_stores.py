"""Stores with a table beside the log that transactional handlers write to, and one whose transactions a test meddles
with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from steplog.eventstore.chain import Position
from steplog.eventstore.events import Event
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Answer, Append, Store, StoreTransaction

Commit = Callable[[Callable[[], None]], None]
"""What is done instead of a commit; calling what it is given commits."""


def postgres_beside(dsn: str, schema: str, **options: Any) -> PostgresStore:
    """A store whose handlers find their tables in the store's own schema."""
    return PostgresStore(make_conninfo(dsn, options=f"-c search_path={schema}"), schema=schema, **options)


def opened_beside(kind: str, request: pytest.FixtureRequest, folder: Path) -> Store:
    """A SQLite store in that folder, or one in the tests' PostgreSQL; not migrated yet."""
    if kind == "sqlite":
        return SQLiteStore(folder / "steplog.db")
    dsn, schema = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("postgres_schema")
    return postgres_beside(dsn, schema, portable=kind == "portable")


def make_table(store: Store) -> None:
    """The table `effects`, which takes the same name twice: what happened twice shows."""
    transaction = store.begin()
    transaction.execute("create table effects (name text)")
    transaction.commit()


def effects(store: Store) -> list[str]:
    transaction = store.begin()
    try:
        return [name for (name,) in transaction.execute("select name from effects order by name")]
    finally:
        transaction.roll_back()


class MeddledTransactions:
    """A store whose transactions pass through a test's hands, and which keeps what was appended in them and beside."""

    def __init__(self, store: Store, commit: Commit) -> None:
        self._store = store
        self._commit = commit
        self.transactions: list[StoreTransaction] = []
        self.inside: list[Append] = []
        self.beside: list[Append] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def begin(self, timeout_s: float | None = None) -> _Meddled:
        self.transactions.append(self._store.begin(timeout_s))
        return _Meddled(self.transactions[-1], self._commit, self.inside)

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        self.beside += batch
        return self._store.append(batch)


class _Meddled:
    def __init__(self, transaction: StoreTransaction, commit: Commit, inside: list[Append]) -> None:
        self._transaction = transaction
        self._commit = commit
        self._inside = inside

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def append(self, item: Append) -> Answer:
        self._inside.append(item)
        return self._transaction.append(item)

    def tail(self, job_id: str, known: Position) -> list[Event]:
        return self._transaction.tail(job_id, known)

    def commit(self) -> None:
        self._commit(self._transaction.commit)
