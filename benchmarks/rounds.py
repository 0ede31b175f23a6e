"""Interleaved rounds: every contestant once, then every contestant again, each run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from contests import Contest, Contestant
from environments import Environments
from servers import Postgres

PROGRAMS = Path(__file__).with_name("programs")
RUN_S_MAX = 900


@dataclass
class Servers:
    """Where work can be done."""

    postgres: Postgres | None
    proxy_port: int | None
    restate: str | None


@dataclass
class Runs:
    """What one contestant of a contest came to, round by round."""

    contestant: Contestant
    rates: list[float] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    flushes_per_unit: list[float] = field(default_factory=list)
    notes: list[dict[str, float]] = field(default_factory=list)
    failed: str | None = None

    @property
    def rate(self) -> float | None:
        """The median of its rounds."""
        return median(self.rates) if self.rates and self.failed is None else None


def run_rounds(contest: Contest, rounds: int, servers: Servers, environments: Environments) -> Iterator[list[Runs]]:
    """The runs so far, after each round."""
    all_runs = [Runs(contestant) for contestant in contest.contestants]
    for _ in range(rounds):
        for runs in all_runs:
            if runs.failed is None:
                _run_once(contest, runs, servers, environments)
        yield all_runs


def _run_once(contest: Contest, runs: Runs, servers: Servers, environments: Environments) -> None:
    contestant = runs.contestant
    python = environments.python_of(contestant.name)
    if python is None:
        runs.failed = environments.left_out[contestant.name]
        return
    try:
        with _store(contestant, servers) as store:
            work = {**contest.work, **contestant.work, "store": store}
            before = servers.postgres.flushes() if servers.postgres else 0
            measured = _in_a_process(python, contestant.program, work)
            after = servers.postgres.flushes() if servers.postgres else 0
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        runs.failed = str(error)
        return
    runs.rates.append(measured["units"] / measured["seconds"])
    runs.notes.append(measured["notes"])
    runs.settings = measured["settings"]
    runs.flushes_per_unit.append((after - before) / (measured["units"] + measured["warm_up"]))


@contextmanager
def _store(contestant: Contestant, servers: Servers) -> Iterator[str]:
    if contestant.backend == "SQLite":
        with tempfile.TemporaryDirectory(prefix="steplog-bench-") as folder:
            yield f"sqlite:///{folder}/log.db"
    elif contestant.backend == "its own server":
        if servers.restate is None:
            raise RuntimeError("its server does not run here")
        yield servers.restate
    else:
        if servers.postgres is None:
            raise RuntimeError("no PostgreSQL can be had here")
        with servers.postgres.database(servers.proxy_port if "away" in contestant.backend else None) as url:
            yield url


def _in_a_process(python: str, program: str, work: dict[str, Any]) -> dict[str, Any]:
    command = [python, str(PROGRAMS / program), json.dumps(work)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STEPLOG"))}
    with tempfile.TemporaryDirectory(prefix="steplog-bench-here-") as folder:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_S_MAX, cwd=folder, env=environment, check=False
        )
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "it ended without a word").splitlines()[-1])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
