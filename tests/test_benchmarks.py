"""The benchmarks' own programs still run, on a small piece of work, and read their durability back. No timing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def measured(tmp_path: Path, program: str, **work: Any) -> dict[str, Any]:
    given = {"what": "jobs", "store": f"sqlite:///{tmp_path}/log.db", **work}
    command = [sys.executable, str(BENCHMARKS / "programs" / program), json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    "program",
    ["steplog_jobs.py", "steplog_transactions.py", "insert_commits.py", "group_commits.py", "transaction_commits.py"],
)
def test_a_program_that_records_steps_does_all_of_them_durably(tmp_path: Path, program: str) -> None:
    answer = measured(tmp_path, program, jobs=3, steps=2, at_once=3)

    assert answer["units"] == 6
    assert answer["settings"] == {"journal_mode": "wal", "synchronous": "2"}


@pytest.mark.parametrize(
    ("what", "work", "units"),
    [("appends", {"events": 256}, 256), ("opening", {"steps": 3}, 20), ("memory", {"jobs": 3}, 3)],
)
def test_a_program_on_the_log_alone_says_what_it_did(
    tmp_path: Path, what: str, work: dict[str, Any], units: int
) -> None:
    assert measured(tmp_path, "steplog_logs.py", what=what, **work)["units"] == units


def test_every_contest_has_its_programs() -> None:
    list_them = (
        "from contests import contests;"
        " print(*sorted({each.program for contest in contests() for each in contest.contestants}))"
    )
    listed = subprocess.run(
        [sys.executable, "-c", list_them], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()

    assert len(listed) >= 9
    assert [name for name in listed if not (BENCHMARKS / "programs" / name).is_file()] == []


@pytest.mark.parametrize("what", ["requests", "unchanged requests", pytest.param("viewers", marks=pytest.mark.heavy)])
def test_a_program_on_the_status_api_says_what_it_did(tmp_path: Path, what: str) -> None:
    answer = measured(tmp_path, "steplog_api.py", what=what, events=3, at_once=2)
    assert answer["units"] == 3
    assert {"told_p99_ms", "page_p99_ms", "statements_per_s"} <= answer["notes"].keys() or "p99_ms" in answer["notes"]
