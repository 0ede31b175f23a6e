"""The PostgreSQL store is a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from compliance.store_compliance import StoreCompliance
from psycopg import sql
from psycopg.conninfo import make_conninfo

from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.rows import Row
from steplog.eventstore.store import Store


class PostgresHarness:
    portable = False

    def __init__(self, dsn: str, schema: str) -> None:
        self.dsn = make_conninfo(dsn, options=f"-c search_path={schema}")
        self.schema = schema
        self.opened: list[Store] = []
        self.store = self.reopen()
        self.store.migrate()
        with self._connect() as raw:
            raw.execute("create table effects (name text primary key)")

    def reopen(self) -> Store:
        self.opened.append(PostgresStore(self.dsn, schema=self.schema, portable=self.portable))
        return self.opened[-1]

    def end_process(self, store: Store, worker_id: str) -> None:
        """The process was on another machine, so its death shows when its lease is over."""
        store.close()
        with self._connect() as raw:
            raw.execute("update workers set expires_at = now() - interval '1 ms' where worker_id = %s", [worker_id])

    def rewrite_rows(self, job_id: str, change: Callable[[list[Row]], list[Row]]) -> None:
        with self._connect() as raw:
            instant = "to_char(recorded_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            found = raw.execute(
                sql.SQL(
                    "select version, event_id::text, type, schema_version, {}, data::text, hash from events"
                    " where job_id = %s order by version"
                ).format(sql.SQL(instant)),
                [job_id],
            )
            rows = change([Row(*row) for row in found])
            raw.execute("alter table events disable trigger user")
            raw.execute("delete from events where job_id = %s", [job_id])
            raw.cursor().executemany(
                "insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s)",
                [(job_id, *row._replace(payload=_text(row.payload))) for row in rows],
            )
            raw.execute("alter table events enable trigger user")

    def forbidden_statements(self, job_id: str) -> list[Callable[[], object]]:
        return [
            partial(self._execute, "update events set data = '{}' where job_id = %s", [job_id]),
            partial(self._execute, "update events set version = version + 100 where job_id = %s", [job_id]),
            partial(self._execute, "delete from events where job_id = %s", [job_id]),
            partial(self._execute, "truncate events", []),
        ]

    def _execute(self, statement: str, parameters: list[str]) -> None:
        with self._connect() as raw:
            raw.execute(statement.encode(), parameters)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn)


def _text(payload: bytes | str) -> str:
    return payload.decode() if isinstance(payload, bytes) else payload


@pytest.fixture
def harness(postgres_dsn: str, postgres_schema: str) -> Iterator[PostgresHarness]:
    harness = PostgresHarness(postgres_dsn, postgres_schema)
    yield harness
    for store in harness.opened:
        store.close()


class TestPostgresStore(StoreCompliance):
    pass
