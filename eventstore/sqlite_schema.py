"""The SQLite schema: which migrations a file has had, and applying the ones it lacks in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from steplog.eventstore.migrations import Applied, Migration, known_migrations, pending


def lacking(connection: sqlite3.Connection) -> list[Migration]:
    """The migrations that the file lacks. Raises StoreNewer, StoreError as `pending` does."""
    return pending(known_migrations("sqlite"), _applied(connection))


def apply(connection: sqlite3.Connection, migration: Migration, at: str) -> None:
    """Apply one migration inside the connection's transaction."""
    for statement in _statements(migration.text):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO schema_migrations (number, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
        (migration.number, migration.name, migration.checksum, at),
    )


def _applied(connection: sqlite3.Connection) -> list[Applied]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'").fetchone():
        return []
    return [Applied(*row) for row in connection.execute("SELECT number, name, checksum FROM schema_migrations")]


def _statements(script: str) -> Iterator[str]:
    """The script's statements; sqlite3's own executescript would commit the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
