"""What holds of every story of faults; `python tests/simulation --help` tells more of them, or one again, shrunk."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulation.simulate import Verdict, judge, judge_seed, quietly, replay
from simulation.story import Checkpoint, PhaseStory, Script, Sleep, Story, SubStepStory, TransactionFault

SIMULATION = Path(__file__).parent / "simulation"
SEEDS = 1_000
MANY_SEEDS = 100_000
TELLING = 10
"""Of how many stories a thing has to be part, so that what they say about it is worth something."""

MET = (
    *("crash", "take-over", "take-over of the living", "stop", "interruption"),
    *("conflict", "fenced", "lost", "unanswered", "stored before", "slow", "slow answer", "no room", "unreadable"),
    *("retry", "timeout", "skip", "late outcome", "checkpoint", "context refused"),
    *("operator", "by hand: set", "by hand: complete", "by hand: skip", "by hand: fail", "reset", "resume"),
    *("transaction committed", "commit unknown", "wait", "signal", "no signal in time", "deadline"),
    *("lines", "progress", "fork", "input edited", "fan-out", "given back"),
    *("undoing", "undoing failed", "undoing interrupted", "parked undoing"),
    *("completed", "failed", "parked", "paused", "cancelled"),
)
"""Faults, turns and ends that the stories are about."""


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("steplog")
    level = logger.level
    quietly()
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    """Those on the stories up to the first that goes wrong."""
    verdicts = []
    for seed in range(SEEDS):
        verdicts.append(judge_seed(seed))
        if verdicts[-1].broken:
            break
    return verdicts


def test_a_thousand_stories_break_no_invariant(verdicts: list[Verdict]) -> None:
    if verdicts[-1].broken:
        pytest.fail(replay(len(verdicts) - 1, verdicts[-1]), pytrace=False)
    assert len(verdicts) == SEEDS


def test_a_thousand_stories_meet_every_fault_and_come_to_every_end(verdicts: list[Verdict]) -> None:
    met = Counter(name for verdict in verdicts for name in verdict.covered)
    assert {name: met[name] for name in MET if met[name] < TELLING} == {}


def test_a_story_is_the_same_every_time() -> None:
    for seed in range(25):
        assert judge_seed(seed) == judge_seed(seed)


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    told = [simulate("--seed", "14", "--whole", hash_seed=hash_seed) for hash_seed in ("1", "2")]
    assert told[0].stdout == told[1].stdout
    assert "replay: python tests/simulation --seed 14" in told[0].stdout


def test_an_attempt_that_ends_late_frees_no_place_but_its_own() -> None:
    """Two have lost their transactions; the handler of the second is still in its checkpoint when the third begins."""
    lost = Script((), "refused"), Script((Checkpoint(97),)), Script((Sleep(0.3),))
    phases = (
        PhaseStory("p0", (SubStepStory("s0", transactional=True),)),
        PhaseStory("p1", (SubStepStory("s0", transactional=True, scripts=lost),)),
    )
    verdict = judge(Story(phases, (TransactionFault(3, "late and lost", 0.5),), stops_writers=True))
    assert verdict.broken == {}


@pytest.mark.heavy
def test_a_hundred_thousand_stories_break_no_invariant() -> None:
    told = simulate("--seeds", str(MANY_SEEDS), "--branches", "0")
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}"


def simulate(*options: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, str(SIMULATION), *options], env=environment, capture_output=True, text=True, check=False
    )
