"""The example client in Node: every change it has awaited survives its death, and nothing completed runs again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from api_world import SECRETS, TOKENS, World
from browser import serving
from source_tree import ROOT

from steplog.eventstore.sqlite import SQLiteStore

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node")


def run(address: str, effects: Path, kill_after: int | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STEPLOG_TOKEN": SECRETS["node"]}
    if kill_after is not None:
        environment["KILL_AFTER"] = str(kill_after)
    command = [str(NODE), str(ROOT / "examples" / "node" / "registration.mjs"), address, "r42", str(effects)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_what_was_awaited_survives_and_nothing_completed_runs_again(tmp_path: Path) -> None:
    store, effects = SQLiteStore(tmp_path / "steplog.db"), tmp_path / "effects"
    world = World(store, tokens=TOKENS, name="reader")
    with serving(world.app) as address:
        killed = [run(address, effects, after).returncode for after in (2, 3, 4)]
        assert killed == [-signal.SIGKILL] * 3
        done = run(address, effects, None)
        assert done.returncode == 0, done.stderr
    (row,) = world.client.get("/api/v1/jobs").json()["items"]
    assert (row["status"], row["mode"]) == ("completed", "recorded")
    job = world.client.get(f"/api/v1/jobs/{row['job_id']}").json()
    steps = [step for phase in job["phases"].values() for step in phase["sub_steps"].values()]
    runs = Counter(effects.read_text().split())
    assert {step["status"] for step in steps} == {"completed"}
    assert len(runs) == len(steps)
    assert sum(runs.values()) <= sum(step["attempts"] for step in steps)
    assert max(runs.values()) <= 1 + len(killed)
    completions = [event.data["sub_step"] for event in store.read(row["job_id"]) if event.type == "SubStepCompleted"]
    assert len(completions) == len(set(completions))
    assert "done before" in done.stdout
    store.close()
