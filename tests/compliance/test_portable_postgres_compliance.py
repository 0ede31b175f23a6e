"""The PostgreSQL store in its portable form is a store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from compliance.store_compliance import StoreCompliance
from compliance.test_postgres_compliance import PostgresHarness


class PortableHarness(PostgresHarness):
    portable = True


@pytest.fixture
def harness(postgres_dsn: str, postgres_schema: str) -> Iterator[PortableHarness]:
    harness = PortableHarness(postgres_dsn, postgres_schema)
    yield harness
    for store in harness.opened:
        store.close()


class TestPortablePostgresStore(StoreCompliance):
    pass
