"""Pruning: events of jobs that ended long ago are exported, read back, and removed; heads and keys stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from steplog.engine.moving import ends_of, export
from steplog.eventstore.store import Head, HeadQuery, Store
from steplog.projections.state import ENDED

PAGE_JOBS = 500


def old_jobs(store: Store, before: str) -> Iterator[Head]:
    """Jobs that ended before that instant and have their events yet, newest first."""
    for status in sorted(ENDED):
        query = HeadQuery(status=status, limit=PAGE_JOBS)
        while page := store.heads(query):
            yield from (head for head in page if _is_old(store, head, before))
            query = replace(query, before=page[-1].job_id)


def export_of(store: Store, heads: Iterable[Head]) -> Iterator[bytes]:
    """The jobs' lines, for the file that is kept of them. Raises LogError: nothing was removed."""
    for head in heads:
        yield from export(store, head.job_id)


def prune(
    store: Store, exported: Iterable[bytes], told: Callable[[str, bool], None] = lambda job_id, done: None
) -> int:
    """Remove the events of each job that the export holds whole, as read back; how many jobs that were.

    A job that went on since, or is somebody's, is left as it is. Raises ImportRefused and LogError where the export is
    damaged: jobs before that are pruned. Raises StoreError where this user may not.
    """
    count = 0
    for job_id, end in ends_of(exported):
        done = store.prune(job_id, end)
        told(job_id, done)
        count += done
    return count


def _is_old(store: Store, head: Head, before: str) -> bool:
    ended_at = head.columns.ended_at
    return ended_at is not None and ended_at < before and head.worker_id is None and store.pruned(head.job_id) is None
