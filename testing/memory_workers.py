"""Workers of the store in memory: alive until they stop, are declared dead, or a test kills them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from steplog.eventstore.errors import WorkerDead
from steplog.eventstore.store import Worker, WorkerIdentity


class WorkersInMemory:
    """Those that the store has been told of."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._workers: dict[str, Worker] = {}
        self._killed: set[str] = set()
        self._lock = threading.RLock()
        self._seen_at = now

    def kill_worker(self, worker_id: str) -> None:
        """The worker's process dies without a word; whoever wants its jobs finds out."""
        with self._lock:
            self._killed.add(worker_id)

    def register_worker(self, worker: WorkerIdentity, lease_s: float) -> None:
        with self._lock:
            known = self._workers.get(worker.worker_id)
            if known and (known.state != "alive" or known.identity != worker):
                raise WorkerDead(worker.worker_id)
            self._workers.setdefault(worker.worker_id, Worker(worker, "alive", self._seen_at(), None))

    def retire_worker(self, worker_id: str) -> None:
        with self._lock:
            self._end(worker_id, "stopped")

    def workers(self) -> list[Worker]:
        with self._lock:
            return list(reversed(self._workers.values()))

    def _require_alive(self, worker_id: str) -> None:
        if worker_id not in self._workers or self._workers[worker_id].state != "alive":
            raise WorkerDead(worker_id)

    def _lives(self, worker_id: str) -> bool:
        worker = self._workers.get(worker_id)
        return worker is not None and worker.state == "alive" and worker_id not in self._killed

    def _end(self, worker_id: str, state: Literal["dead", "stopped"]) -> None:
        worker = self._workers.get(worker_id)
        if worker and worker.state == "alive":
            self._workers[worker_id] = replace(worker, state=state)
