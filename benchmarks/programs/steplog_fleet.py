"""steplog: jobs submitted as a batch, run by worker processes as `run_worker` runs them by default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fleet import WORKER, until, workers
from program import Measured, Stopwatch, Work, main
from steplog_jobs import chain
from steplog_stores import durability_of, opened

from steplog import run_worker
from steplog.eventstore.store import Answer, Append, Slots, Store


def measure(work: Work) -> Measured:
    with opened(work.store) as store:
        if work.what == WORKER:
            return serve(store, work)
        watch = Stopwatch()
        with workers(work) as of_workers:
            run_all(store, work.steps, work.workers * work.at_once)
            with watch.running():
                run_all(store, work.steps, work.jobs)
        claims: Counter[str] = sum((Counter(each["notes"]) for each in of_workers), Counter())
        refused = (claims.total() - claims["stored"]) / claims["stored"]
        return Measured(work.jobs, watch.seconds, durability_of(store), {"claims refused for one made": refused})


def serve(store: Store, work: Work) -> Measured:
    """Until this process is ended; then how its claims ended."""
    counting: Any = Counting(store)
    run_worker(chain(work.steps), store=counting, concurrency=work.at_once)
    return Measured(0, 0.0, notes=dict(counting.claims))


class Counting:
    """The same store; counts the answers to claims by their codes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.claims: Counter[str] = Counter()

    def claim_many(self, batch: Sequence[Append], slots: Slots | None = None) -> list[Answer]:
        answers = self._store.claim_many(batch, slots)
        self.claims.update(str(answer.code) for answer in answers)
        return answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def run_all(store: Store, steps: int, jobs: int) -> None:
    """Submit a batch and wait until each of its jobs has completed."""
    batch = chain(steps).submit_many([None] * jobs, store=store)
    until(lambda: store.batches(batch.batch_id)[0].statuses == {"completed": jobs})


if __name__ == "__main__":
    main(measure)
