"""Fixtures for tests on PostgreSQL: one cluster a session, started when first asked for, and an empty schema a test.

The server is STEPLOG_TEST_DSN's if that is set. Where none can be had the tests skip and say so at the end of the run,
and fail where CI is true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import postgres_cluster
import psycopg
import pytest
from postgres_schemas import PostgresSchemas, drop, new_name
from witness_figures import skip_untested

from steplog.eventstore.postgres import PostgresStore


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
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
        skip_untested("ON POSTGRESQL", error)
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


@pytest.fixture(scope="session")
def postgres_schemas(postgres_dsn: str) -> Iterator[PostgresSchemas]:
    """The migrated schemas that tests take turns with."""
    schemas = PostgresSchemas(postgres_dsn)
    yield schemas
    schemas.close()


@pytest.fixture
def postgres_schema(postgres_schemas: PostgresSchemas) -> Iterator[str]:
    """The name of a migrated, empty schema that nothing else uses."""
    name = postgres_schemas.lend()
    yield name
    postgres_schemas.take_back(name)


@pytest.fixture
def new_schema(postgres_dsn: str) -> Iterator[str]:
    """The name of a schema that is not there yet, dropped after the test."""
    name = new_name()
    yield name
    drop(postgres_dsn, name)


@pytest.fixture
def postgres_store(postgres_dsn: str, postgres_schema: str) -> Iterator[PostgresStore]:
    """A migrated store in a schema of its own."""
    store = PostgresStore(postgres_dsn, schema=postgres_schema)
    yield store
    store.close()
