"""What the compliance suite needs of a store beyond its contract: other openings of it, death, tampering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from steplog.eventstore.rows import Row
from steplog.eventstore.store import Store


class LogHarness(Protocol):
    """One empty, migrated log, and what a test may do to it behind the store's back.

    Beside the log there is an empty table `effects (name text primary key)` that is not the log's.

    A module that enrols a store has a fixture `harness` that yields one of these.
    """

    store: Store

    def reopen(self) -> Store:
        """A further store object on the same log, as another process would have it; the harness closes it."""
        ...

    def end_process(self, store: Store, worker_id: str) -> None:
        """The process behind a store from `reopen` dies without a word, and with it the worker registered there."""
        ...

    def rewrite_rows(self, job_id: str, change: Callable[[list[Row]], list[Row]]) -> None:
        """Replace the job's stored events by what `change` makes of them, past every protection; the head stays."""
        ...

    def forbidden_statements(self, job_id: str) -> list[Callable[[], object]]:
        """Attempts to update and to delete events with the store's own rights; empty where there is no database."""
        ...
