"""Data keys in memory, as a store keeps them."""

from __future__ import annotations

import threading

from steplog.eventstore.data_keys import DataKey
from steplog.eventstore.store import NewJob, Proposal


class DataKeysInMemory:
    """The keys of a store's jobs."""

    def __init__(self) -> None:
        self._keys: dict[str, DataKey] = {}
        self._lock = threading.Lock()

    def find(self, job_id: str) -> DataKey | None:
        with self._lock:
            return self._keys.get(job_id)

    def add(self, job_id: str, wrapped: str) -> DataKey:
        with self._lock:
            return self._keys.setdefault(job_id, DataKey(job_id, wrapped))

    def keep(self, job: NewJob) -> None:
        """The key that a new job brings along."""
        if job.data_key is not None:
            self.add(job.job_id, job.data_key)

    def rewrap(self, before: DataKey, wrapped: str) -> bool:
        with self._lock:
            unchanged = before.wrapped is not None and self._keys.get(before.job_id) == before
            if unchanged:
                self._keys[before.job_id] = DataKey(before.job_id, wrapped)
            return unchanged

    def after(self, job_id: str = "", limit: int = 500) -> list[DataKey]:
        with self._lock:
            return [self._keys[known] for known in sorted(self._keys) if known > job_id][:limit]

    def follow(self, job_id: str, proposal: Proposal, now: str) -> None:
        """Destroy the job's key, and let it have none any more, where what is appended says so."""
        with self._lock:
            if proposal.erases and ((known := self._keys.get(job_id)) is None or known.wrapped is not None):
                self._keys[job_id] = DataKey(job_id, None, now)
