"""The schema in PostgreSQL: what it lacks of this steplog's migrations, and how one is applied."""

from __future__ import annotations

import logging

from psycopg import sql

from steplog.eventstore.errors import StoreNotMigrated
from steplog.eventstore.migrations import Applied, Migration, known_migrations, pending
from steplog.eventstore.postgres_connections import Connection, Run
from steplog.eventstore.postgres_tables import require_durable

_log = logging.getLogger("steplog.eventstore.postgres")


def check(connection: Connection, schema: str) -> None:
    """Raises StoreNotMigrated, StoreNewer, or StoreError where the server does not keep what it acknowledges."""
    missing = lacking(connection, schema)
    if missing:
        raise StoreNotMigrated(f"schema {schema} lacks {len(missing)} migrations, the first {missing[0].title}")
    run: Run = lambda text, parameters: connection.rows(text.encode(), parameters)  # noqa: E731
    for setting in require_durable(run):
        _log.warning("%s is off: a power cut may damage the log", setting)


def bring_up_to_date(connection: Connection, schema: str, *, dry_run: bool) -> list[Migration]:
    """Apply what the schema lacks in the open transaction; in a dry run only say what that is."""
    if not dry_run:
        _begin(connection, schema)
    missing = lacking(connection, schema)
    if not dry_run:
        for migration in missing:
            _apply(connection, migration)
    return missing


def lacking(connection: Connection, schema: str) -> list[Migration]:
    """The migrations not applied yet. Raises StoreNewer where the schema is ahead of this steplog."""
    table = sql.Identifier(schema, "schema_migrations")
    name = table.as_string(None)
    if connection.rows(b"select to_regclass(%s)", [name]) == [(None,)]:
        return known_migrations("postgres")
    query = sql.SQL("select number, name, checksum from {}").format(table)
    return pending(known_migrations("postgres"), [Applied(*row) for row in connection.execute(query)])


def _begin(connection: Connection, schema: str) -> None:
    """One migrator at a time, and every name that follows in this schema."""
    connection.execute("select pg_advisory_xact_lock(hashtext('steplog migrations'), hashtext(%s))", [schema])
    # Asked first: CREATE SCHEMA IF NOT EXISTS wants the right to create one even where it is there.
    if not connection.rows(b"select true from pg_catalog.pg_namespace where nspname = %s", [schema]):
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    # pg_temp comes last, or a temporary table could stand in for one of ours inside the functions.
    connection.execute(sql.SQL("set local search_path to {}, pg_temp").format(sql.Identifier(schema)))


def _apply(connection: Connection, migration: Migration) -> None:
    connection.execute(migration.text.encode())
    connection.execute(
        "insert into schema_migrations (number, name, checksum) values (%s, %s, %s)",
        [migration.number, migration.name, migration.checksum],
    )
