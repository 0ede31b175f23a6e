"""Fixtures for tests on PostgreSQL: one cluster a session, started when first asked for, and a fresh schema a test.

The server is STEPLOG_TEST_DSN's if that is set. Where none can be had the tests skip and say so at the end of the run,
and fail where CI is true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import postgres_cluster
import psycopg
import pytest
from psycopg import sql

from steplog.eventstore.postgres import PostgresStore

_MISSING = pytest.StashKey[str]()
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """A PostgreSQL database of the tests' own."""
    given = os.environ.get("STEPLOG_TEST_DSN")
    if given:
        yield given
        return
    try:
        cluster = postgres_cluster.start()
    except postgres_cluster.NoPostgres as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no PostgreSQL for the tests: {error}")
        request.config.stash[_MISSING] = str(error)
        pytest.skip(f"no PostgreSQL for the tests: {error}")
    try:
        yield cluster.dsn
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[postgres_cluster.Cluster]:
    """Another server, for tests that restart it or change its settings; they put them back."""
    try:
        cluster = postgres_cluster.start()
    except postgres_cluster.NoPostgres as error:
        pytest.skip(f"no PostgreSQL to restart: {error}")
    try:
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            # Else each restart after a crash opens and flushes every file of the server's folder.
            if connection.info.server_version >= 140000:
                connection.execute("alter system set recovery_init_sync_method = 'syncfs'")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def postgres_schema(postgres_dsn: str) -> Iterator[str]:
    """The name of a schema that nothing else uses, dropped after the test."""
    name = f"steplog_test_{os.getpid()}_{next(_numbers)}"
    yield name
    with psycopg.connect(postgres_dsn, autocommit=True, options="-c lock_timeout=10s") as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(name)))


@pytest.fixture
def postgres_store(postgres_dsn: str, postgres_schema: str) -> Iterator[PostgresStore]:
    """A migrated store in a schema of its own."""
    store = PostgresStore(postgres_dsn, schema=postgres_schema)
    store.migrate()
    yield store
    store.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = config.stash.get(_MISSING, None)
    if missing:
        terminalreporter.section("NOTHING WAS TESTED ON POSTGRESQL", red=True, bold=True)
        terminalreporter.line(missing)
