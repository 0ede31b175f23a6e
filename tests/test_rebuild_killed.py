"""A rebuild in a process of its own is killed at random while jobs go on, and gone on with: rebuilt equals live."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from logged_jobs import LoggedJob
from shown_jobs import HALF_WAY, completed, started
from witness_figures import Show

from steplog.engine.verification import verify_all
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.projections.following import next_name
from steplog.projections.kept_documents import KeptDocuments
from steplog.projections.runner import ProjectionRunner, own_projections, rebuild

PROGRAM = Path(__file__).with_name("rebuild_process.py")
JOBS = 24
STRETCHES = 2 * (JOBS // 2 + JOBS // 4)
"""About how many the process does of both projections."""


class RunningJob:
    """A job that goes on for ever: its sub-step is tried again and again."""

    def __init__(self, store: Store) -> None:
        self.job = LoggedJob(store)
        self.job.add([fact for _, fact in HALF_WAY])
        self.attempt = 1

    def go_on(self) -> None:
        self.attempt += 1
        key = "phase2/menu_import"
        attempt = [started(53.0, key, self.attempt)[1], completed(54.0, key, 1.0, self.attempt)[1]]
        self.job.add(attempt)


def address_of(store: Store, request: pytest.FixtureRequest) -> tuple[str, str]:
    if isinstance(store, SQLiteStore):
        return store.url, ""
    return request.getfixturevalue("postgres_dsn"), request.getfixturevalue("postgres_schema")


def wrong(store: Store) -> list[object]:
    """What of all that is kept is not what the log comes to."""
    kept = [KeptDocuments(store, each) for each in own_projections()]
    return [found for found in verify_all(store, kept=kept) if "document" in found.why or found.job_id is None]


def killed_rebuild(address: tuple[str, str], jobs: list[RunningJob], luck: random.Random) -> bool:
    """Whether it was killed before its end, at a stretch drawn by luck, with jobs going on until then."""
    with subprocess.Popen([sys.executable, str(PROGRAM), *address], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(luck.randint(1, STRETCHES)):
            if not process.stdout.readline():
                break
            luck.choice(jobs).go_on()
        process.kill()
    return process.returncode != 0


@pytest.mark.parametrize("trials", [2, pytest.param(200, marks=pytest.mark.heavy)])
def test_rebuild_killed_while_jobs_go_on_and_gone_on_with_is_what_is_live(
    store: Store, request: pytest.FixtureRequest, trials: int, show: Show
) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    luck, jobs, killed, under_way = random.Random(seed), [RunningJob(store) for _ in range(JOBS)], 0, 0
    address = address_of(store, request)
    ProjectionRunner(store).catch_up()
    for _ in range(trials):
        killed += killed_rebuild(address, jobs, luck)
        under_way += any(next_name(each.name) in store.projected.checkpoints() for each in own_projections())
        ProjectionRunner(store).catch_up()
        assert wrong(store) == [], f"live after a kill, seed {seed}"
        for projection in own_projections():
            assert list(rebuild(store, projection))
        ProjectionRunner(store).catch_up()
        assert wrong(store) == [], f"rebuilt, seed {seed}"
    show(
        "rebuilds killed",
        f"{killed} of {trials}, {under_way} of them before they took over, seed {seed}; 0 differences",
    )
