"""A job that kills its process parks; jobs that ran beside it in that process, and died with it, do not."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from steplog import Workflow
from steplog.engine.decider import decide, in_progress
from steplog.engine.facts import Interrupted, Situation
from steplog.engine.history import load
from steplog.engine.lane import Lane
from steplog.engine.plan import plan_of
from steplog.eventstore.clock import later
from steplog.eventstore.events import Event, JobClaimed, JobCreated
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery
from steplog.projections.evolve import Evolution, evolve
from steplog.projections.plan import Shape

PROGRAM = """
import asyncio, os, signal, sys, time
from pathlib import Path
from steplog import Step, Workflow

folder, killer, neighbour = Path(sys.argv[1]), Workflow("killer"), Workflow("neighbour")

@killer.sub_step
def kill(step: Step) -> None:
    limit = time.monotonic() + (60 if step.attempt < 3 else 0.5)
    while not (folder / str(step.attempt)).exists() and time.monotonic() < limit:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)

@neighbour.sub_step
def work(step: Step) -> None:
    (folder / str(step.attempt)).touch()
    while step.attempt < 3:
        time.sleep(0.01)
    time.sleep(0.6)

async def both() -> None:
    store = f"sqlite:///{folder}/steplog.db"
    await asyncio.gather(*(wf.arun(key="one", store=store) for wf in (killer, neighbour)))

asyncio.run(both())
"""
DEATHS_MAX = 6


def test_a_job_that_kills_its_process_parks_and_its_neighbour_on_the_worker_goes_on(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        store.migrate()
        codes: list[int] = []
        while len(codes) < DEATHS_MAX and 0 not in codes:
            ran = subprocess.run(
                [sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, timeout=60, check=False
            )
            codes.append(ran.returncode)
        states = {head.columns.workflow: load(store, head.job_id).state for head in store.heads(HeadQuery())}

    assert codes == [-9, -9, -9, 0]
    assert (states["killer"]["status"], states["neighbour"]["status"]) == ("parked", "completed")
    assert states["killer"]["reason"] == "crash loop: main/kill was interrupted 3 times"


def test_where_another_job_runs_a_suspect_none_starts_and_all_else_does() -> None:
    wf = Workflow("suspects")
    wf.sub_step(name="suspect")(lambda: None)
    created = JobCreated(workflow=wf.name, workflow_version="1", plan=dict(plan_of(wf)))
    at = "2026-11-23T10:00:00.000000Z"
    state = evolve(None, Event("j1", 1, "", created.type(), 1, at, created.as_data(), ""))
    shape = Shape.of(state["plan"])
    for epoch in (1, 2, 3):
        at = later(at, 60.0)
        claimed = Evolution(state)
        claimed.foresee(JobClaimed(worker_id="w", epoch=epoch, claim_id="c", reason="takeover"), at)
        died = [Interrupted("owner died", "w")] if epoch > 1 else []
        state = decide(claimed.state, shape, died, at, Situation()).state

    at = later(at, 60.0)
    waiting = decide(state, shape, [], at, Situation(suspects_wait=True, release_after_s=0.0))
    started = decide(state, shape, [], at, Situation())

    assert (waiting.events, in_progress(waiting.state)) == ([], [])
    assert [of.sub_step for of in in_progress(started.state)] == ["suspect"]


def test_the_lane_is_held_by_one_job_and_who_waits_is_told_when_it_is_free() -> None:
    lane, told = Lane(), list[str]()

    assert lane.enter("a", lambda: told.append("a"))
    assert lane.enter("a", lambda: told.append("a"))
    assert not lane.enter("b", lambda: told.append("b"))
    lane.leave("b")
    assert told == []
    lane.leave("a")
    assert told == ["b"]
    assert lane.enter("b", lambda: None)


@pytest.mark.parametrize("who", ["a", "nobody"])
def test_who_does_not_hold_the_lane_frees_it_for_nobody(who: str) -> None:
    lane = Lane()
    assert lane.enter("holder", lambda: None)
    lane.leave(who)
    assert not lane.enter("other", lambda: None)
