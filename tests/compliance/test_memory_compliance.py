"""The in-memory store is a store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from compliance.store_compliance import StoreCompliance

from steplog.eventstore.rows import Row
from steplog.eventstore.store import Store
from steplog.testing.memory import MemoryStore


class MemoryHarness:
    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.store: Store = self.memory
        with self.memory.transaction() as transaction:
            transaction.execute("CREATE TABLE effects (name text PRIMARY KEY)")

    def reopen(self) -> Store:
        return self.memory

    def end_process(self, store: Store, worker_id: str) -> None:
        self.memory.kill_worker(worker_id)

    def rewrite_rows(self, job_id: str, change: Callable[[list[Row]], list[Row]]) -> None:
        job = self.memory._jobs[job_id]
        job.rows = change(job.rows)

    def forbidden_statements(self, job_id: str) -> list[Callable[[], object]]:
        return []


@pytest.fixture
def harness() -> MemoryHarness:
    return MemoryHarness()


class TestMemoryStore(StoreCompliance):
    pass
