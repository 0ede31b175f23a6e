"""What the in-memory store keeps of a job, and how it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, StoreError
from steplog.eventstore.events import NewEvent
from steplog.eventstore.inspection import PAGE_JOBS, Key
from steplog.eventstore.rows import Row
from steplog.eventstore.store import Append, Claim, Head, HeadQuery, NewJob, StoredState
from steplog.eventstore.stream import Mark


@dataclass(slots=True)
class JobInMemory:
    head: Head
    rows: list[Row] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    states: dict[tuple[int, int], tuple[Position, bytes]] = field(default_factory=dict)
    """By reducer version and version; as bytes, so that nobody holds a reference into the store."""
    held: bool = False
    """Whether a transaction that has appended is still open: everybody else waits for its end."""

    def has_ended_at(self, at: Position) -> bool:
        """Whether its log ends there for good, and nobody owns it."""
        ended = self.head.columns.status in ("completed", "cancelled") and not self.head.worker_id
        return ended and (self.head.version, self.head.hash) == (at.version, at.hash)

    def keep(self, stored: StoredState) -> None:
        """Keep a state that is one of this log."""
        at = stored.position
        if at.hash in (row.hash for row in self.rows[at.version - 1 : at.version]):
            self.states.setdefault((stored.reducer_version, at.version), (at, orjson.dumps(stored.state)))

    def state_at(self, reducer_version: int, until: int | None) -> StoredState | None:
        """The latest state kept of that reducer, at most at version `until`."""
        versions = [
            version
            for reducer, version in self.states
            if reducer == reducer_version and (until is None or version <= until)
            if self.states[reducer, version][0].hash in (row.hash for row in self.rows[version - 1 : version])
        ]
        if not versions:
            return None
        position, state = self.states[reducer_version, max(versions)]
        return StoredState(self.head.job_id, position, reducer_version, orjson.loads(state))

    def require_same(self, job: NewJob) -> None:
        """Raise StoreError unless it began with the same events."""
        if [row.event_id for row in self.rows[: len(job.events)]] != [event.event_id for event in job.events]:
            raise StoreError(f"job {job.job_id} exists already, with other events")


class InspectionInMemory:
    """What is in the store, as an auditor sees it."""

    def __init__(self, jobs: Mapping[str, JobInMemory], keys: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        self._jobs = jobs
        self._keys = keys

    def job_ids(self, after: str = "", limit: int = PAGE_JOBS) -> list[str]:
        return [job_id for job_id in sorted(self._jobs) if job_id > after][:limit]

    def rows(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Row]:
        stored = self._jobs[job_id].rows if job_id in self._jobs else []
        return iter([row for row in stored if row.version > after and (until is None or row.version <= until)])

    def states(self, job_id: str) -> Iterator[StoredState]:
        states = self._jobs[job_id].states if job_id in self._jobs else {}
        for (reducer_version, _), (at, state) in sorted(states.items(), key=lambda stored: stored[0][::-1]):
            yield StoredState(job_id, at, reducer_version, orjson.loads(state))

    def key(self, workflow: str, key: str) -> Key | None:
        holder = self._keys.get((workflow, key))
        return Key(workflow, key, *holder) if holder else None

    def keys(self, after: tuple[str, str] = ("", ""), limit: int = PAGE_JOBS) -> list[Key]:
        return [Key(*name, *self._keys[name]) for name in sorted(self._keys) if name > after][:limit]

    def damage(self) -> list[str]:
        return []


def owned(head: Head, claim: Claim | None) -> Head:
    if claim is None:
        return replace(head, claim_id=None, worker_id=None)
    return replace(head, epoch=claim.epoch, claim_id=claim.claim_id, worker_id=claim.worker_id or None)


def row_of(event: NewEvent) -> Row:
    return Row(
        event.version,
        event.event_id,
        event.type,
        event.schema_version,
        event.recorded_at,
        event.payload,
        event.hash,
    )


def position_at(job_id: str, rows: Sequence[Row], version: int) -> Position:
    if version <= 0:
        return Position()
    for row in rows:
        if row.version == version:
            return Position(version, row.hash, row.recorded_at)
    raise DamagedLog(job_id, version, "missing")


def matches(head: Head, query: HeadQuery) -> bool:
    columns = head.columns
    wanted = [
        (query.workflow, columns.workflow),
        (query.status, columns.status),
        (query.phase, columns.phase),
        (query.key, columns.key),
        (query.failed_sub_step, columns.failed_sub_step),
        (query.batch_id, columns.batch_id),
    ]
    return (
        all(value is None or value == actual for value, actual in wanted)
        and query.tags.items() <= columns.tags.items()
        and (query.since is None or columns.created_at >= query.since)
        and (query.before is None or head.job_id < query.before)
    )


def marks_of(job: JobInMemory, item: Append) -> dict[int, Mark]:
    """The stored events from where the item is to go on, by version."""
    return {row.version: Mark(row.event_id, row.hash) for row in job.rows[max(item.expected.version - 1, 0) :]}
