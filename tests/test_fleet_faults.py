"""Workers that are killed, stopped, starved and asked to stop while they run jobs, seen by an outside witness."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from statistics import quantiles
from typing import Any

import fleet_process
import psycopg
import pytest
from fleet_process import DECLARED_DEAD, QUICK, Dose, Fleet
from registration_shape import Signup, registration_shape
from witness import assert_explained, assert_nothing_ran_after_its_completion, assert_outcome, noted
from witness_figures import Show
from witness_process import Place

from steplog import Settings
from steplog.eventstore.events import Event
from steplog.eventstore.store import Store
from steplog.projections.evolve import fold
from steplog.projections.head import head_of

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["steplog.engine.serving", "steplog.eventstore.postgres", "steplog.eventstore.sqlite"]
)

SHORT = Settings(interruptions_max=1000, poll_s=0.05, poll_s_max=0.2, lease_s=0.8, heartbeat_s=0.2, grace_s=10.0)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where processes meet: a store of each kind in turn."""
    if request.param == "sqlite":
        return Place(tmp_path)
    request.getfixturevalue("postgres_store")
    return Place(tmp_path, request.getfixturevalue("postgres_dsn"), request.getfixturevalue("postgres_schema"))


@pytest.fixture
def postgres_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    request.getfixturevalue("postgres_store")
    return Place(tmp_path, request.getfixturevalue("postgres_dsn"), request.getfixturevalue("postgres_schema"))


def started(place: Place, fleet: Fleet) -> ForkServerProcess:
    process = _processes.Process(target=fleet_process.serve, args=(place, fleet))
    process.start()
    return process


@contextlib.contextmanager
def ended(*processes: ForkServerProcess) -> Iterator[None]:
    """However the test ends, so do they."""
    try:
        yield
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join(10)


def until(said: Callable[[], bool], timeout_s: float = 60.0) -> None:
    moment, give_up_at = threading.Event(), time.monotonic() + timeout_s
    while not said():
        assert time.monotonic() < give_up_at, "it did not come about in time"
        moment.wait(0.01)


def signalled(process: ForkServerProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


# --- killed at random ------------------------------------------------------------------------------------------------


def test_jobs_whose_workers_are_killed_at_random_all_complete(place: Place, show: Show) -> None:
    killed_at_random(place, show, jobs=12, workers=2, apart_s=(0.1, 0.5), kills_max=5)


@pytest.mark.heavy
def test_a_thousand_jobs_whose_workers_are_killed_at_random_all_complete(place: Place, show: Show) -> None:
    workers = 4 if place.dsn else 2
    killed_at_random(
        place, show, jobs=1000 if place.dsn else 200, workers=workers, apart_s=(0.05, 0.5), kills_max=100_000
    )


@pytest.mark.heavy
def test_jobs_of_workers_far_away_are_taken_over_when_their_lease_is_over(postgres_place: Place, show: Show) -> None:
    far = Fleet(settings=SHORT, far=True)
    killed_at_random(postgres_place, show, jobs=60, workers=4, apart_s=(0.5, 1.5), kills_max=30, fleet=far)


def killed_at_random(
    place: Place,
    show: Show,
    *,
    jobs: int,
    workers: int,
    apart_s: tuple[float, float],
    kills_max: int,
    fleet: Fleet | None = None,
) -> None:
    """Kill one worker after the other, replace it, until all jobs are done; then compare with the witness."""
    fleet, seed = fleet or Fleet(), random.randrange(1 << 32)
    draw = random.Random(seed)
    store = place.open()
    batch = registration_shape(lambda *effect: None).submit_many([Signup()] * jobs, store=store)
    alive = [started(place, fleet) for _ in range(workers)]
    kills: dict[int, float] = {}
    moment = threading.Event()

    def is_done() -> bool:
        return store.batches(batch.batch_id)[0].statuses == {"completed": jobs}

    with contextlib.ExitStack() as stack:
        give_up_at = time.monotonic() + 60 + jobs
        while not is_done():
            assert time.monotonic() < give_up_at, f"seed {seed}: {store.batches(batch.batch_id)}"
            moment.wait(draw.uniform(*apart_s))
            if len(kills) < kills_max:
                victim = draw.randrange(workers)
                signalled(alive[victim], signal.SIGKILL)
                kills[alive[victim].pid or 0] = time.time()
                alive[victim].join()
                alive[victim] = started(place, fleet)
        stack.enter_context(ended(*alive))
    told = f"seed {seed}, {len(kills)} kills, {jobs} jobs"
    assert kills, told
    waits = check(place, store, batch.job_ids, kills)
    store.close()
    if len(waits) > 1:
        cuts = quantiles(waits, n=100)
        took = f"{len(waits)} take-overs, p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s after the death"
        show("workers killed at random", f"{told}; {took} (lease {fleet.settings.lease_s:g} s, far away: {fleet.far})")


def check(place: Place, store: Store, job_ids: list[str], kills: dict[int, float]) -> list[float]:
    """Every invariant of every job, from outside; seconds from each death to the take-overs after it."""
    effects, acks = noted(place.folder / "effects"), noted(place.folder / "acks")
    of_key: dict[str, list[dict[str, Any]]] = {}
    for effect in effects:
        of_key.setdefault(effect["idempotency_key"].partition("@")[0], []).append(effect)
    pids = {worker.identity.worker_id: worker.identity.pid for worker in store.workers()}
    waits: list[float] = []
    explained = 0
    for job_id in job_ids:
        events = list(store.read(job_id))
        keys = {event.data["idempotency_key"] for event in events if event.type == "SubStepStarted"}
        mine = [effect for key in keys for effect in of_key.get(key, [])]
        explained += len(mine)
        assert_nothing_ran_after_its_completion(events)
        assert_explained(mine, events)
        state = fold(events)
        assert_outcome(state)
        assert store.head(job_id).columns == head_of(state)
        stored = {event.version: event.event_id for event in events}
        for ack in acks:
            if ack["job_id"] == job_id:
                assert all(stored[int(version)] == event_id for version, event_id in ack["events"].items())
        waits += takeover_waits(events, pids, kills)
    assert explained == len(effects), "effects happened under no key of these jobs"
    return waits


def takeover_waits(events: list[Event], pids: dict[str, int], kills: dict[int, float]) -> list[float]:
    waits, owner = [], ""
    for event in events:
        if event.type == "JobClaimed":
            if event.data["reason"] == "takeover" and pids.get(owner) in kills:
                taken = time.mktime(time.strptime(event.recorded_at[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
                waits.append(max(0.0, taken + float(event.recorded_at[19:-1]) - kills[pids[owner]]))
            owner = event.data["worker_id"]
    return waits


# --- stopped, starved ------------------------------------------------------------------------------------------------


def zombies(postgres_place: Place, fleet: Fleet, make_zombie: Callable[[ForkServerProcess], None]) -> None:
    """One worker falls silent for longer than its lease while another is there, and comes back."""
    store, folder = postgres_place.open(), postgres_place.folder
    job_id = fleet_process.steady(postgres_place).submit(store=store)
    zombie = started(postgres_place, fleet)
    with ended(zombie):
        until(lambda: (folder / "attempts").exists())
        other = started(postgres_place, replace(fleet, holds_gil_s=0.0))
        with ended(other):
            make_zombie(zombie)
            until(lambda: len(noted(folder / "attempts")) == 2)
            if fleet.holds_gil_s == 0:
                signalled(zombie, signal.SIGCONT)
            zombie.join(30)
            (folder / "enough").touch()
            until(lambda: store.head(job_id).columns.status == "completed")
            other.terminate()
            other.join(30)
    events = list(store.read(job_id))
    claims = [event for event in events if event.type == "JobClaimed"]
    assert [claim.data["reason"] for claim in claims] == ["first", "takeover"]
    former, taken_at = claims[0].data["worker_id"], claims[1].version
    late = [
        ack for ack in noted(folder / "acks") if ack["worker_id"] == former and max(map(int, ack["events"])) > taken_at
    ]
    assert late == []
    assert (zombie.exitcode, other.exitcode) == (DECLARED_DEAD, 0)
    store.close()


@pytest.mark.parametrize("trial", [pytest.param(n, marks=[pytest.mark.heavy] if n else []) for n in range(50)])
def test_a_worker_stopped_past_its_lease_writes_nothing_when_it_wakes(postgres_place: Place, trial: int) -> None:
    zombies(postgres_place, Fleet("steady", SHORT, 1), lambda zombie: signalled(zombie, signal.SIGSTOP))


@pytest.mark.parametrize("trial", [pytest.param(n, marks=[pytest.mark.heavy] if n else []) for n in range(50)])
def test_a_worker_whose_interpreter_is_held_for_three_leases_writes_nothing_after(
    postgres_place: Place, trial: int
) -> None:
    zombies(postgres_place, Fleet("steady", SHORT, 1, holds_gil_s=3 * SHORT.lease_s), lambda zombie: None)


# --- what kills its own process --------------------------------------------------------------------------------------


def test_a_job_that_kills_its_process_parks_and_its_neighbours_complete(place: Place) -> None:
    one_deadly_among(place, innocent=6)


@pytest.mark.heavy
def test_a_job_that_kills_its_process_parks_among_two_hundred(place: Place) -> None:
    one_deadly_among(place, innocent=200)


def one_deadly_among(place: Place, innocent: int) -> None:
    store, settings = place.open(), replace(QUICK, interruptions_max=3)
    wf = fleet_process.deadly()
    batch = wf.submit_many([Dose(), Dose(deadly=True), *[Dose()] * (innocent - 1)], store=store)
    deaths = 0

    def is_over() -> bool:
        return store.batches(batch.batch_id)[0].statuses == {"completed": innocent, "parked": 1}

    while not is_over():
        assert deaths < 5, store.batches(batch.batch_id)
        worker = started(place, Fleet("deadly", settings))
        with ended(worker):
            until(lambda worker=worker: is_over() or not worker.is_alive())  # type: ignore[misc]  # this worker
        deaths += worker.exitcode == -signal.SIGKILL and not is_over()
    assert store.head(batch.job_ids[1]).columns.status == "parked"
    store.close()


# --- asked to stop ---------------------------------------------------------------------------------------------------


def test_a_worker_asked_twice_hands_back_at_once_and_its_jobs_go_on_elsewhere(place: Place) -> None:
    store, folder = place.open(), place.folder
    wf = fleet_process.steady(place)
    jobs = [wf.submit(store=store) for _ in range(3)]
    asked = started(place, Fleet("steady", Fleet().settings, 3))
    with ended(asked):
        until(lambda: len(noted(folder / "attempts")) == 3)
        signalled(asked, signal.SIGTERM)
        signalled(asked, signal.SIGINT)  # two of one kind would be taken for one
        asked.join(30)
    assert asked.exitcode == 0
    for job_id in jobs:
        head = store.head(job_id)
        assert (head.worker_id, head.columns.status) == (None, "queued")
    (folder / "enough").touch()
    other = started(place, Fleet("steady", Fleet().settings, 3))
    with ended(other):
        until(lambda: all(store.head(job_id).columns.status == "completed" for job_id in jobs))
    causes = [event.data["cause"] for event in store.read(jobs[0]) if event.type == "SubStepInterrupted"]
    assert causes == ["handed back"]
    store.close()


# --- hints lost ------------------------------------------------------------------------------------------------------


def test_polling_carries_on_where_the_listener_is_terminated(postgres_place: Place, postgres_dsn: str) -> None:
    store = postgres_place.open()
    wf = registration_shape(lambda *effect: None)
    worker = started(postgres_place, Fleet())
    with ended(worker), psycopg.connect(postgres_dsn, autocommit=True) as admin:
        until(lambda: bool(terminated_listeners(admin)))
        jobs = [wf.submit(Signup(), store=store) for _ in range(3)]
        until(lambda: all(store.head(job_id).columns.status == "completed" for job_id in jobs))
    store.close()


def terminated_listeners(admin: psycopg.Connection[Any]) -> list[bool]:
    ended = admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%' and pid <> pg_backend_pid()"
    )
    return [is_ended for (is_ended,) in ended]
