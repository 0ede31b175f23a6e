"""Migrated schemas for tests, each lent to one at a time: making one costs a hundred times what emptying it does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count

import psycopg
from psycopg import sql

from steplog.eventstore.postgres import PostgresStore

_numbers = count(1)

_STRUCTURE = """
with
    relation as (select oid, xmin from pg_class where relnamespace = %(schema)s::regnamespace),
    part as (
        select concat_ws(' ', oid, xmin) as seen from pg_namespace where oid = %(schema)s::regnamespace
        union all select concat_ws(' ', oid, xmin) from relation
        union all select concat_ws(' ', oid, xmin) from pg_proc where pronamespace = %(schema)s::regnamespace
        union all select concat_ws(' ', oid, xmin) from pg_constraint where connamespace = %(schema)s::regnamespace
        union all select concat_ws(' ', r.oid, attnum, a.xmin) from pg_attribute a join relation r on attrelid = r.oid
        union all select concat_ws(' ', t.oid, tgenabled) from pg_trigger t join relation r on tgrelid = r.oid
    )
select md5(string_agg(seen, ',' order by seen)) from part
"""
"""Which versions of which catalogue rows make up the schema: another text after any change of it, but for triggers that
were switched off and on again, and tables of the test's own that are gone."""

_TABLES = """
select relname from pg_class
where relnamespace = %s::regnamespace and relkind in ('r', 'p') and not relispartition
"""
_SEQUENCES = "select relname from pg_class where relnamespace = %s::regnamespace and relkind = 'S'"


@dataclass(frozen=True)
class _Schema:
    """A schema as it was when it was made, and the statements that make its tables as empty as they were."""

    name: str
    tables: frozenset[str]
    structure: str
    emptying: sql.Composed


def new_name() -> str:
    """The name of a schema that nothing else uses."""
    return f"steplog_test_{os.getpid()}_{next(_numbers)}"


def drop(dsn: str, name: str) -> None:
    with _connected(dsn) as connection:
        _drop(connection, name)


class PostgresSchemas:
    """The schemas of one database that no test uses at the moment."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        # Kept, for most of what a new one would do is to read the catalogue anew.
        self._connection = _connected(dsn)
        self._free: list[_Schema] = []
        self._lent: dict[str, _Schema] = {}

    def lend(self) -> str:
        """The name of a migrated schema without a row."""
        schema = self._free.pop() if self._free else self._made()
        self._lent[schema.name] = schema
        return schema.name

    def take_back(self, name: str) -> None:
        """Empty it for the next test, or drop it if this one changed more than rows or the server lets us not."""
        schema = self._lent.pop(name)
        connection = self._connection
        for table in _tables(connection, name) - schema.tables:
            connection.execute(sql.SQL("drop table if exists {} cascade").format(sql.Identifier(name, table)))
        if _is_superuser(connection) and _structure(connection, name) == schema.structure:
            connection.execute(schema.emptying)
            self._free.append(schema)
        else:
            _drop(connection, name)

    def close(self) -> None:
        """Drop them all."""
        while self._free:
            _drop(self._connection, self._free.pop().name)
        self._connection.close()

    def _made(self) -> _Schema:
        name = new_name()
        store = PostgresStore(self._dsn, schema=name)
        store.migrate()
        store.close()
        connection = self._connection
        tables = _tables(connection, name)
        return _Schema(name, tables, _structure(connection, name), _emptying(connection, name, tables))


def _connected(dsn: str) -> psycopg.Connection:
    return psycopg.connect(
        dsn, autocommit=True, options="-c lock_timeout=10s -c client_min_messages=warning -c search_path=pg_catalog"
    )


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(name)))


def _is_superuser(connection: psycopg.Connection) -> bool:
    """Whether triggers can be left out of a deletion."""
    return connection.info.parameter_status("is_superuser") == "on"


def _structure(connection: psycopg.Connection, name: str) -> str:
    (row,) = connection.execute(_STRUCTURE, {"schema": sql.Identifier(name).as_string()})
    return str(row[0])


def _tables(connection: psycopg.Connection, name: str) -> frozenset[str]:
    rows = connection.execute(_TABLES, [sql.Identifier(name).as_string()])
    return frozenset(table for (table,) in rows)


def _emptying(connection: psycopg.Connection, name: str, tables: frozenset[str]) -> sql.Composed:
    filled = tables - {"schema_migrations"}
    deletions = [sql.SQL("delete from {}").format(sql.Identifier(name, table)) for table in sorted(filled)]
    restarts = [
        sql.SQL("select setval({}, 1, false)").format(sql.Literal(sql.Identifier(name, sequence).as_string()))
        for (sequence,) in connection.execute(_SEQUENCES, [sql.Identifier(name).as_string()])
    ]
    # Sent as one query, so that it is one transaction.
    return sql.SQL("; ").join([sql.SQL("set local session_replication_role = replica"), *deletions, *restarts])
