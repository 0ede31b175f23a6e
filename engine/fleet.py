"""How the fleet is: workers and what they own, jobs that stand still, and why, and what helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from steplog.engine.ownership import is_gone, stalled_among
from steplog.eventstore.clock import seconds_between
from steplog.eventstore.store import Head, HeadQuery, Store, Worker

READY_LATE_S = 60.0
"""A job that has been due for so long, and that nobody has claimed, stands still."""
_PAGE_JOBS = 500


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker, how many jobs it owns, and whether it is known to be gone without having said so."""

    worker: Worker
    jobs: int
    is_gone: bool


@dataclass(frozen=True, slots=True)
class Stalled:
    """A job that nobody moves: why, and whether resuming it by hand helps."""

    head: Head
    why: str
    next_step: str


@dataclass(frozen=True, slots=True)
class FleetSeen:
    """The fleet at one time."""

    now: str
    workers: list[WorkerSeen]
    """Those that live, and those that own jobs although they do not."""
    oldest_ready: Head | None
    """Of the jobs that are due and nobody's, the one that has waited longest."""

    @property
    def oldest_ready_s(self) -> float | None:
        """How long it has waited, in seconds."""
        if self.oldest_ready is None or self.oldest_ready.columns.wake_at is None:
            return None
        return max(0.0, seconds_between(self.oldest_ready.columns.wake_at, self.now))


def fleet_seen(store: Store, *, ended: bool = False) -> FleetSeen:
    """The workers, with those that have ended only where asked for, and the job that has waited longest."""
    owned = store.owned_counts()
    seen = [
        WorkerSeen(worker, owned.get(worker.identity.worker_id, 0), is_gone(worker) and worker.state == "alive")
        for worker in store.workers()
    ]
    shown = [each for each in seen if ended or each.jobs or (each.worker.state == "alive" and not each.is_gone)]
    return FleetSeen(store.now(), shown, next(iter(store.longest_ready(1)), None))


def stalled_jobs(store: Store) -> Iterator[Stalled]:
    """Jobs whose owner is gone, and jobs that have been due for a minute and that no worker took."""
    for page in _running(store):
        gone = stalled_among(store, page)
        for head in page:
            if head.job_id in gone:
                identity = gone[head.job_id].identity
                yield Stalled(head, f"its worker is gone ({identity.host}, pid {identity.pid})", "resume")
    now = store.now()
    for head in store.longest_ready(_PAGE_JOBS):
        waited_s = seconds_between(head.columns.wake_at or now, now)
        if waited_s > READY_LATE_S:
            yield Stalled(head, f"it is due, and no worker of {head.columns.workflow} took it", "worker")


def _running(store: Store) -> Iterator[list[Head]]:
    before: str | None = None
    while page := store.heads(HeadQuery(status="running", before=before, limit=_PAGE_JOBS)):
        yield page
        before = page[-1].job_id


def fleet_document(store: Store, *, ended: bool = False) -> dict[str, Any]:
    """The fleet and what stands still, as JSON shows it."""
    seen = fleet_seen(store, ended=ended)
    ready = seen.oldest_ready
    return {
        "now": seen.now,
        "workers": [_worker_document(each) for each in seen.workers],
        "oldest_ready": {"job_id": ready.job_id, "seconds": seen.oldest_ready_s} if ready else None,
        "stalled": [
            {"job_id": each.head.job_id, "why": each.why, "next_step": each.next_step} for each in stalled_jobs(store)
        ],
    }


def _worker_document(seen: WorkerSeen) -> dict[str, Any]:
    worker, identity = seen.worker, seen.worker.identity
    return {
        "worker_id": identity.worker_id,
        "state": "gone" if seen.is_gone else worker.state,
        "jobs": seen.jobs,
        "host": identity.host,
        "pid": identity.pid,
        "started_at": worker.started_at,
        "expires_at": worker.expires_at,
    }
