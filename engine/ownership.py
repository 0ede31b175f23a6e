"""Who runs a job, and whether that process is still there, as far as looking without claiming can tell."""

from __future__ import annotations

from collections.abc import Iterable

from steplog.eventstore.process_identity import certainly_dead
from steplog.eventstore.store import Head, Store, Worker


def stalled_among(store: Store, heads: Iterable[Head]) -> dict[str, Worker]:
    """The jobs that are owned by a worker known to be gone, with that worker; they go on when somebody resumes them."""
    owned = {head.job_id: head.worker_id for head in heads if head.worker_id is not None}
    if not owned:
        return {}
    workers = {worker.identity.worker_id: worker for worker in store.workers()}
    gone = {worker_id for worker_id in set(owned.values()) & workers.keys() if is_gone(workers[worker_id])}
    return {job_id: workers[worker_id] for job_id, worker_id in owned.items() if worker_id in gone}


def is_gone(worker: Worker) -> bool:
    """Whether the worker has ended, was declared dead, or its process is certainly no more."""
    return worker.state != "alive" or certainly_dead(worker.identity)
