"""What somebody who audits a store reads of it: everything as it is stored, also what no head leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from steplog.eventstore.chain import Position
from steplog.eventstore.rows import Row

PAGE_JOBS = 500
"""How many ids or keys one query fetches."""


class Key(NamedTuple):
    """A key that is taken, by which job, and with which input."""

    workflow: str
    key: str
    job_id: str
    input_hash: str


@dataclass(frozen=True, slots=True)
class StoredState:
    """A fold kept so that the next one need not start at version 1."""

    job_id: str
    position: Position
    reducer_version: int
    state: dict[str, Any]


class Inspection(Protocol):
    """A store as an auditor sees it. Nothing is checked; between pages no transaction is open."""

    def job_ids(self, after: str = "", limit: int = PAGE_JOBS) -> list[str]:
        """Ids behind `after`, ascending, of jobs of which anything is stored: a head, events or states."""
        ...

    def rows(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Row]:
        """Every event stored under that job behind `after`, in order; also behind its head, or without one."""
        ...

    def states(self, job_id: str) -> Iterator[StoredState]:
        """The job's stored states of every reducer, by version. Raises DamagedLog at one that was altered."""
        ...

    def key(self, workflow: str, key: str) -> Key | None:
        """Who has that key."""
        ...

    def keys(self, after: tuple[str, str] = ("", ""), limit: int = PAGE_JOBS) -> list[Key]:
        """Keys behind that workflow and key, in their order."""
        ...

    def damage(self) -> list[str]:
        """What the database itself finds wrong with its files, where it can tell."""
        ...


def all_job_ids(inspection: Inspection) -> Iterator[str]:
    """Every job, page by page."""
    page = inspection.job_ids()
    while page:
        yield from page
        page = inspection.job_ids(page[-1])


def all_keys(inspection: Inspection) -> Iterator[Key]:
    """Every key, page by page."""
    page = inspection.keys()
    while page:
        yield from page
        page = inspection.keys((page[-1].workflow, page[-1].key))


def one_by_one(
    next_after: Callable[[tuple[int, int]], StoredState | None],
) -> Iterator[StoredState]:
    """States by version and reducer, each fetched when its turn comes: one may be large."""
    at = (0, 0)
    while stored := next_after(at):
        yield stored
        at = (stored.position.version, stored.reducer_version)
