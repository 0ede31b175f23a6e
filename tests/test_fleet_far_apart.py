"""Workers with something between them: a transaction pooler before the database, a pid namespace, requests to stop that
come at any moment."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
from fleet_process import QUICK, Fleet, steady
from pooler import find_pgbouncer, pooled
from registration_shape import Signup, registration_shape
from test_fleet_faults import SHORT, check, ended, killed_at_random, signalled, started, until
from test_fleet_faults import place as place
from test_fleet_faults import postgres_place as postgres_place
from witness import noted
from witness_figures import Show, skip_untested
from witness_process import Place

from steplog.eventstore.store import Store

POOL = 8

_SERVE = """
import pickle, sys
sys.path[:0] = {path!r}
import fleet_process
fleet_process.serve(*pickle.loads(bytes.fromhex(sys.argv[1])))
"""

_UNSHARE = [
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
]


# --- behind a pooler -------------------------------------------------------------------------------------------------


@pytest.fixture
def pooled_place(postgres_place: Place) -> Iterator[Place]:
    binary = find_pgbouncer()
    if binary is None:
        skip_untested("A FLEET BEHIND A POOLER", "there is no pgbouncer; `make pgbouncer` fetches Debian's")
    assert postgres_place.dsn
    with pooled(binary, postgres_place.dsn, pool=POOL) as dsn:
        yield replace(postgres_place, dsn=dsn)


@pytest.mark.heavy
def test_jobs_of_workers_behind_a_pooler_that_are_killed_at_random_all_complete(
    pooled_place: Place, show: Show
) -> None:
    killed_at_random(pooled_place, show, jobs=200, workers=4, apart_s=(0.1, 0.5), kills_max=100)


# --- two containers on one machine -----------------------------------------------------------------------------------


@contextlib.contextmanager
def isolated(place: Place, fleet: Fleet) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a pid namespace of its own; the process that is given is the one that made the namespace."""
    given = pickle.dumps((place, fleet)).hex()
    process = subprocess.Popen([*_UNSHARE, sys.executable, "-c", _SERVE.format(path=sys.path), given])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.heavy
def test_workers_in_two_pid_namespaces_do_not_take_each_other_for_dead(postgres_place: Place) -> None:
    """Mutant: a process id that is not there, whatever namespace it is of, means that its worker died."""
    if subprocess.run([*_UNSHARE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine makes no pid namespaces")
    folder, fleet = postgres_place.folder, Fleet("steady", SHORT, 1)
    with contextlib.closing(postgres_place.open()) as store, isolated(postgres_place, fleet) as inside:
        job_id = steady(postgres_place).submit(store=store)
        until(lambda: (folder / "attempts").exists())
        outside = started(postgres_place, fleet)
        with ended(outside):
            threading.Event().wait(3 * SHORT.lease_s)
            assert [event.type for event in store.read(job_id)].count("JobClaimed") == 1
            inside.kill()
            until(lambda: len(noted(folder / "attempts")) == 2)
            (folder / "enough").touch()
            until(lambda: store.head(job_id).columns.status == "completed")
            signalled(outside, signal.SIGTERM)
            outside.join(30)
        claims = [event.data["reason"] for event in store.read(job_id) if event.type == "JobClaimed"]
        assert (claims, outside.exitcode) == (["first", "takeover"], 0)


# --- asked to stop at any moment -------------------------------------------------------------------------------------


@pytest.mark.parametrize("requests", [5, pytest.param(100, marks=pytest.mark.heavy)])
def test_jobs_of_workers_asked_to_stop_at_any_moment_are_handed_back_and_complete(
    place: Place, requests: int, show: Show
) -> None:
    """SIGTERM or SIGINT, once or twice; mutant: what runs is left to the lease."""
    seed = random.randrange(1 << 32)
    draw, moment = random.Random(seed), threading.Event()
    store, fleet = place.open(), Fleet(settings=replace(QUICK, lease_s=60.0))
    wf = registration_shape(lambda *effect: None)
    job_ids: list[str] = []
    for number in range(requests):
        fresh = wf.submit_many([Signup()] * 4, store=store).job_ids
        job_ids += fresh
        worker = started(place, fleet)
        with ended(worker):
            until(partial(begun, store, fresh))
            moment.wait(draw.uniform(0.0, 0.2))
            for signal_number in draw.sample([signal.SIGTERM, signal.SIGINT], draw.choice([1, 2])):
                signalled(worker, signal_number)
            worker.join(30)
        told = f"seed {seed}, request {number}"
        assert worker.exitcode == 0, told
        owners = {job_id: store.head(job_id).worker_id for job_id in fresh}
        assert set(owners.values()) == {None}, f"{told}: {owners}"
    last = started(place, fleet)
    with ended(last):
        until(lambda: all(store.head(job_id).columns.status == "completed" for job_id in job_ids), 300)
        signalled(last, signal.SIGTERM)
        last.join(30)
    assert check(place, store, job_ids, {}) == []
    show("workers asked to stop at random", f"seed {seed}: {requests} requests, {len(job_ids)} jobs, all handed back")
    store.close()


def begun(store: Store, job_ids: Sequence[str]) -> bool:
    """Whether any of the jobs has been claimed."""
    return any(store.head(job_id).epoch for job_id in job_ids)
