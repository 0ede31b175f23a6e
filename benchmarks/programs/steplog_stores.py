"""A steplog store for a measured program, and the settings that its writer really has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from program import settings_of_postgres, settings_of_sqlite

from steplog import open_store
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """The store there, with its schema."""
    store = open_store(url)
    store.migrate()
    yield store
    store.close()


def durability_of(store: Store) -> dict[str, str]:
    """Read on the store's own connection: settings of a session are seen by nobody else."""
    if isinstance(store, PostgresStore):
        with store._connections._ready_writer().cursor() as cursor:
            return settings_of_postgres(lambda text: cursor.execute(text.encode()).fetchall()[0][0])
    assert isinstance(store, SQLiteStore)
    with store._connections.writing() as connection:
        return settings_of_sqlite(lambda text: connection.execute(text).fetchone()[0])
