"""Every commit arrives in the report's table while jobs go on and a runner keeps it; how long after it, in figures."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from statistics import quantiles
from typing import Any

import pytest
from logged_jobs import LoggedJob
from shown_jobs import HALF_WAY, completed, started
from witness_figures import Show

from steplog.eventstore.projected import Change, Projected
from steplog.eventstore.store import Store
from steplog.projections.runner import ProjectionRunner, kept_current

JOBS = 40
COMMITS = 400
PAUSE_S_MAX = 0.05
ARRIVES_S_MAX = 60


class WitnessedProjections:
    """A store of which is noted when which version of a row was committed to the report's table."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept = store.projected
        self.rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.arrived = threading.Condition()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def projected(self) -> Any:
        return _WitnessedWrites(self._kept, self)


class _WitnessedWrites:
    def __init__(self, kept: Projected, witness: WitnessedProjections) -> None:
        self._kept = kept
        self._witness = witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def store(self, change: Change) -> bool:
        done = self._kept.store(change)
        at = time.monotonic()
        if done and change.rows:
            with self._witness.arrived:
                for document in change.documents:
                    self._witness.rows[document.key].append((document.version, at))
                self._witness.arrived.notify_all()
        return done


@pytest.mark.heavy
def test_commits_arrive_in_the_report_s_table(store: Store, show: Show) -> None:
    luck = random.Random(7)
    jobs = [LoggedJob(store) for _ in range(JOBS)]
    for job in jobs:
        job.add([fact for _, fact in HALF_WAY])
    ProjectionRunner(store).catch_up()
    witness, attempts = WitnessedProjections(store), dict.fromkeys(range(JOBS), 1)
    committed: list[tuple[str, int, float]] = []
    watched: Any = witness
    with kept_current(watched):
        for _ in range(COMMITS):
            place = luck.randrange(JOBS)
            attempts[place] += 1
            of = "phase2/menu_import", attempts[place]
            jobs[place].add([started(53.0, *of)[1], completed(54.0, of[0], 1.0, of[1])[1]])
            committed.append((jobs[place].job_id, jobs[place].position.version, time.monotonic()))
            threading.Event().wait(luck.uniform(0, PAUSE_S_MAX))

        def all_there() -> bool:
            return all(max((seen for seen, _ in witness.rows[job_id]), default=0) >= at for job_id, at, _ in committed)

        with witness.arrived:
            assert witness.arrived.wait_for(all_there, ARRIVES_S_MAX)
    lags = [
        max(0.0, min(at for seen, at in witness.rows[job_id] if seen >= version) - since)
        for job_id, version, since in committed
    ]
    cuts = quantiles(lags, n=100)
    figures = f"p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, longest {max(lags):.2f} s of {COMMITS} commits"
    show(f"{type(store).__name__}, from commit to table", figures)
