"""A machine's clock that is set while jobs run: leases and due times are the store's, intervals are monotonic."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steplog import Retry, Settings, Step, Workflow
from steplog.engine.jobs import run_blocking
from steplog.engine.store_clock import JobTime, StoreClock
from steplog.eventstore.clock import later, seconds_between
from steplog.eventstore.store import Store
from steplog.testing.clock import VirtualClock

DAY_S = 86_400.0
BEGAN = "2026-01-02T00:00:00.000000Z"

steps = st.lists(st.tuples(st.integers(-100_000, 100_000), st.integers(0, 1_000_000)), min_size=1, max_size=20)
"""By how many seconds the clock is set, and how many microseconds pass after that."""


class JumpingClock(VirtualClock):
    """A clock that somebody sets, while what has really passed is known."""

    def __init__(self) -> None:
        super().__init__(BEGAN)
        self.set_by_s = 0.0

    def now(self) -> str:
        return later(super().now(), self.set_by_s)


@given(steps)
def test_a_jobs_time_never_goes_back_and_never_stands_still(steps: list[tuple[int, int]]) -> None:
    clock = JumpingClock()
    job = JobTime(clock, BEGAN)
    seen, passed_us = [job.now(BEGAN)], [0]
    for set_by_s, microseconds in steps:
        clock.set_by_s += set_by_s
        clock.advance(microseconds / 1e6)
        seen.append(job.now(seen[-1]))
        passed_us.append(microseconds)
    for (before, after), microseconds in zip(pairwise(seen), passed_us[1:], strict=True):
        assert round(seconds_between(before, after) * 1e6) >= microseconds


@given(st.integers(0, 1_000_000), st.integers(0, 100))
def test_a_jobs_time_is_the_stores_where_nobody_sets_it(microseconds: int, behind_s: int) -> None:
    clock = VirtualClock(BEGAN)
    job = JobTime(clock, BEGAN)
    clock.advance(microseconds / 1e6)
    assert job.now(BEGAN) == clock.now()
    ahead = later(clock.now(), behind_s)
    assert job.now(ahead) == ahead


def test_the_stores_time_in_this_process_ignores_the_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StoreClock(BEGAN)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= seconds_between(BEGAN, clock.now()) < DAY_S
    clock.set(later(BEGAN, DAY_S))
    assert seconds_between(BEGAN, clock.now()) >= DAY_S


@pytest.mark.parametrize("set_by_s", [-DAY_S, DAY_S])
def test_a_retry_is_as_far_off_as_it_was_when_the_machines_clock_is_set(
    store: Store, monkeypatch: pytest.MonkeyPatch, set_by_s: float
) -> None:
    """Mutant: a wait that is measured with the machine's clock, and lasts a day."""
    wf: Workflow[Any, Any] = Workflow("set clock")
    machine_s = time.time

    @wf.sub_step(retry=Retry(attempts=2, wait=0.5, jitter=0))
    def work(step: Step) -> int:
        if step.attempt == 1:
            monkeypatch.setattr(time, "time", lambda: machine_s() + set_by_s)
            raise ConnectionError("503")
        return step.attempt

    job = run_blocking(wf, None, store=store, settings=Settings(heartbeat_s=0.05))

    assert job.status == "completed"
    events = list(store.read(job.job_id))
    instants = [event.recorded_at for event in events]
    assert instants == sorted(instants)
    (failed,) = (event for event in events if event.type == "SubStepFailed")
    _, started = (event for event in events if event.type == "SubStepStarted")
    assert seconds_between(failed.recorded_at, started.recorded_at) >= 0.5
