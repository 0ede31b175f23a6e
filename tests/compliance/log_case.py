"""What every group of compliance tests starts from: an empty log, a builder, and jobs in the states tests need."""

from __future__ import annotations

from typing import Any

import pytest
from compliance.log_harness import LogHarness
from log_builder import LogBuilder, after

from steplog.eventstore.chain import Position
from steplog.eventstore.events import Event
from steplog.eventstore.store import Append, Claim, Code, Store
from steplog.testing.clock import VirtualClock

LEASE_S = 60.0


class LogCase:
    """Base of the groups; `harness` is a fixture of the module that enrols a store."""

    harness: LogHarness
    store: Store
    build: LogBuilder

    @pytest.fixture(autouse=True)
    def _begin(self, harness: LogHarness) -> None:
        self.harness = harness
        self.store = harness.store
        self.build = LogBuilder(VirtualClock())

    def new_job(self, **columns: Any) -> str:
        """A job nobody owns, at version 1."""
        return self.store.create(self.build.job(**columns))

    def new_worker(self, store: Store | None = None) -> str:
        worker = self.build.worker()
        (store or self.store).register_worker(worker, LEASE_S)
        return worker.worker_id

    def claim(self, job_id: str, worker_id: str | None = None, store: Store | None = None) -> Claim:
        """A claim by that worker, or by a new one."""
        store = store or self.store
        worker_id = worker_id or self.new_worker(store)
        return store.claim(job_id, worker_id, self.position(job_id), self.build.claiming())

    def owned_job(self) -> tuple[str, Claim]:
        """A job at version 2, and its living owner's claim."""
        job_id = self.new_job()
        return job_id, self.claim(job_id)

    def long_job(self, values: int = 4) -> tuple[str, Claim]:
        """An owned job with that many ContextChanged behind version 2."""
        job_id, claim = self.owned_job()
        self.stored(self.build.append(job_id, self.position(job_id), claim, *range(values)))
        return job_id, claim

    def stored(self, item: Append) -> Position:
        """Append it, insist that it was stored, and return where the log ends."""
        (answer,) = self.store.append([item])
        assert answer.code is Code.STORED
        return after(item)

    def code(self, item: Append) -> Code:
        (answer,) = self.store.append([item])
        return answer.code

    def position(self, job_id: str) -> Position:
        return self.store.head(job_id).position

    def log(self, job_id: str) -> list[Event]:
        return list(self.store.read(job_id))

    def values(self, job_id: str) -> list[Any]:
        """The values of the job's ContextChanged events, in order."""
        return [event.data["set"]["value"] for event in self.log(job_id) if event.type == "ContextChanged"]
