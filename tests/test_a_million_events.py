"""A job of a million events is appended to as a new one is, goes on from its stored state at once, and is replayed in
bounded memory.
"""

from __future__ import annotations

import resource
import time
from statistics import quantiles

import pytest
from append_witness import OwnedJob, owned_jobs
from log_builder import after
from witness_figures import Show

from steplog.eventstore.store import Code, Store, StoredState
from steplog.projections.evolve import fold
from steplog.projections.loading import load
from steplog.projections.state import REDUCER_VERSION

EVENTS = 1_000_000
EVENTS_A_TIME = 500
TIMED = 400
GROWTH_MB_MAX = 60
"""What a replay may take beyond what was in use before; the events alone would take more than a gigabyte."""


def append(store: Store, job: OwnedJob, events: int) -> float:
    """How long that took, in milliseconds."""
    item = job.next(*range(events))
    began = time.perf_counter()
    (answer,) = store.append([item])
    took_ms = (time.perf_counter() - began) * 1000
    assert answer.code is Code.STORED
    job.end = after(item)
    return took_ms


def in_turn(store: Store, *jobs: OwnedJob) -> list[str]:
    """p50 and p99 of each job's appends of two events, a job at a time: whatever else the machine does meets all."""
    taken = [[append(store, job, 2) for job in jobs] for _ in range(TIMED)]
    cuts = [quantiles(each, n=100) for each in zip(*taken, strict=True)]
    return [f"{cut[49]:.2f} and {cut[98]:.2f} ms" for cut in cuts]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.heavy
def test_a_job_of_a_million_events_costs_what_it_appends(store: Store, show: Show) -> None:
    kind = type(store).__name__
    long, young = owned_jobs(store, 2)
    first = in_turn(store, long)
    while long.end.version < EVENTS:
        append(store, long, EVENTS_A_TIME)
    last, new = in_turn(store, long, young)
    show(f"{kind}, appends, p50 and p99", f"the first {first[0]}, the last {last}, a new job's beside them {new}")

    before = peak_mb()
    began, cpu_began = time.perf_counter(), time.process_time()
    state = fold(store.read(long.id))
    took_s, cpu_s, growth_mb = time.perf_counter() - began, time.process_time() - cpu_began, peak_mb() - before
    assert (state["version"], growth_mb < GROWTH_MB_MAX) == (long.end.version, True), f"{growth_mb} MB"
    show(
        f"{kind}, replay",
        f"{state['version']} events in {took_s:.1f} s, {cpu_s:.1f} of CPU; grew by {growth_mb:.0f} MB",
    )

    store.save_state(StoredState(long.id, long.end, REDUCER_VERSION, dict(state)))
    append(store, long, EVENTS_A_TIME - 1)
    opened_ms = []
    for _ in range(20):
        began = time.perf_counter()
        assert load(store, long.id).position == long.end
        opened_ms.append((time.perf_counter() - began) * 1000)
    show(f"{kind}, opened from a state 499 events ago", f"{min(opened_ms):.1f} to {max(opened_ms):.1f} ms")
