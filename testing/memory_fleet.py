"""What the in-memory store does for a fleet: finding work, slots of limits, schedules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from steplog.eventstore.store import BatchCount, Head, Work, WorkQuery
from steplog.eventstore.stream import batch_counts


def work_of(query: WorkQuery, heads: Sequence[Head], now: str, lives: Callable[[str], bool]) -> Work:
    """What a worker could claim of the jobs."""
    wanted = [head for head in heads if head.columns.workflow in query.workflows]
    free = [head for head in wanted if head.worker_id is None and head.columns.wake_at is not None]
    late = [head.columns.wake_at for head in free if head.columns.wake_at and head.columns.wake_at > now]
    fresh = [head for head in wanted if query.refused.get(head.job_id) != head.version]
    left = [head for head in fresh if head.worker_id is not None and not lives(head.worker_id)]
    return Work(now, _due_of(query, free, now), left[: query.limit], min(late, default=None))


def _due_of(query: WorkQuery, free: Sequence[Head], now: str) -> list[Head]:
    """By workflow, of each the first few by priority and then by time."""
    due: list[Head] = []
    for workflow in query.workflows:
        found = [head for head in free if head.columns.workflow == workflow and (head.columns.wake_at or "") <= now]
        fresh = [head for head in found if query.refused.get(head.job_id) != head.version]
        fresh = [head for head in fresh if not query.is_held_up(workflow, head.columns.tags)]
        in_order = sorted(fresh, key=lambda head: (-head.columns.priority, head.columns.wake_at or ""))
        due += in_order[: query.limit]
    return due


def longest_due(heads: Sequence[Head], now: str) -> list[Head]:
    """Jobs nobody owns that are due, those first that have waited longest."""
    due = [head for head in heads if head.worker_id is None and head.columns.wake_at and head.columns.wake_at <= now]
    return sorted(due, key=lambda head: head.columns.wake_at or "")


def batches_of(heads: Sequence[Head], batch_id: str | None) -> list[BatchCount]:
    """That batch, or each, counted; newest first."""
    found = [head for head in heads if head.columns.batch_id is not None and batch_id in (None, head.columns.batch_id)]
    return batch_counts((head.columns.batch_id, head.columns.created_at, head.columns.status, 1) for head in found)


class HintsInMemory:
    """Hints between threads that there may be work."""

    def __init__(self) -> None:
        self._hints = 0
        self._hinted = threading.Condition()

    def hint(self) -> None:
        with self._hinted:
            self._hints += 1
            self._hinted.notify_all()

    def await_hint(self, timeout_s: float) -> bool:
        """In real time: the virtual clock stands still for a thread that waits."""
        with self._hinted:
            hints = self._hints
            return self._hinted.wait_for(lambda: self._hints > hints, timeout_s)
