"""What a store keeps of the keys to sealed values: one for each job that has any, wrapped, beside the log.

A key is made with its job (`NewJob.data_key`) or when it is first needed, and destroyed by the append that says so
(`Proposal.erases`), in one transaction with it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class DataKey(NamedTuple):
    """A job's key as it is kept."""

    job_id: str
    wrapped: str | None
    """None once it was destroyed."""
    erased_at: str | None = None


class DataKeys(Protocol):
    """The keys of a store's jobs."""

    def find(self, job_id: str) -> DataKey | None:
        """The job's key, destroyed or not; None where it never had one here."""
        ...

    def add(self, job_id: str, wrapped: str) -> DataKey:
        """Keep a key for the job unless there is one already, or was; the one that counts."""
        ...

    def rewrap(self, before: DataKey, wrapped: str) -> bool:
        """Keep the same key wrapped anew, unless it changed meanwhile; whether that was done."""
        ...

    def after(self, job_id: str = "", limit: int = 500) -> list[DataKey]:
        """Keys of jobs behind that id, ascending, destroyed or not."""
        ...
