"""Many jobs as one: what a person does to each job of a batch that lets him."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from steplog.engine import operators
from steplog.engine.errors import ActionRefused, BatchNotFound
from steplog.eventstore.store import BatchCount, Head, HeadQuery, Store
from steplog.projections.state import ENDED

_PAGE_JOBS = 500
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class BatchAction:
    """What became of an action on a batch: jobs it was done to, and jobs it does not fit as they are."""

    batch_id: str
    done: int
    left: int


def count_batch(store: Store, batch_id: str) -> BatchCount:
    """How far the batch is. Raises BatchNotFound."""
    found = store.batches(batch_id)
    if not found:
        raise BatchNotFound(batch_id)
    return found[0]


def pause_batch(store: Store, batch_id: str, *, by: str, reason: str | None = None) -> BatchAction:
    """Pause each job of the batch that may be paused. Raises BatchNotFound."""
    return _to_each(store, batch_id, lambda job_id: operators.pause(store, job_id, by=by, reason=reason))


def cancel_batch(store: Store, batch_id: str, *, by: str, reason: str | None = None) -> BatchAction:
    """Cancel each job of the batch that has not ended. Raises BatchNotFound."""
    return _to_each(store, batch_id, lambda job_id: operators.cancel(store, job_id, by=by, reason=reason))


def _to_each(store: Store, batch_id: str, action: Callable[[str], object]) -> BatchAction:
    count_batch(store, batch_id)

    def act(head: Head) -> bool:
        if head.columns.status in ENDED:
            return False
        try:
            action(head.job_id)
        except ActionRefused:
            return False
        return True

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        did = list(threads.map(act, _heads_of(store, batch_id)))
    return BatchAction(batch_id, did.count(True), did.count(False))


def _heads_of(store: Store, batch_id: str) -> Iterator[Head]:
    before: str | None = None
    while page := store.heads(HeadQuery(batch_id=batch_id, before=before, limit=_PAGE_JOBS)):
        yield from page
        before = page[-1].job_id
