"""A worker that is killed at any event boundary loses nothing, and the next one runs nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from witness import check, run_to_the_end, run_until_killed
from witness_process import KillPoint, Place

from steplog.eventstore.postgres import PostgresStore

EVENTS_MAX = 60
"""More than the job has: past its end the kill point is never reached, and the run says so."""

SAMPLE = [KillPoint("before", n) for n in (1, 9, 20, 31, 42)]
SAMPLE += [KillPoint("after", n) for n in (1, 5, 14, 26, 37, 44)]
SAMPLE += [KillPoint("effect", n) for n in (1, 4, 7, 9, 13)]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(tmp_path)
    store: PostgresStore = request.getfixturevalue("postgres_store")
    dsn: str = request.getfixturevalue("postgres_dsn")
    return Place(tmp_path, dsn, request.getfixturevalue("postgres_schema")) if store else Place(tmp_path)


def test_a_run_that_nothing_disturbs_has_the_expected_effects(place: Place) -> None:
    run_to_the_end(place)
    check(place)


@pytest.mark.parametrize("kill", SAMPLE, ids=lambda kill: f"{kill.kind}-{kill.count}")
def test_a_job_killed_once_is_resumed_without_loss_or_repetition(place: Place, kill: KillPoint) -> None:
    assert run_until_killed(place, kill)
    run_to_the_end(place)
    check(place)


@pytest.mark.parametrize("first", [3, 12, 24])
def test_a_job_killed_three_times_while_it_recovers_is_resumed(place: Place, first: int) -> None:
    assert run_until_killed(place, KillPoint("after", first))
    for kill in (KillPoint("after", 1), KillPoint("effect", 1), KillPoint("before", first + 6)):
        run_until_killed(place, kill)
    run_to_the_end(place)
    check(place)


@pytest.mark.heavy
@pytest.mark.parametrize("count", range(1, EVENTS_MAX))
@pytest.mark.parametrize("kind", ["before", "after", "effect"])
def test_a_job_killed_at_each_boundary_is_resumed(place: Place, kind: str, count: int) -> None:
    if run_until_killed(place, KillPoint(kind, count)):  # type: ignore[arg-type]  # the parameters are the kinds
        run_to_the_end(place)
    check(place)
