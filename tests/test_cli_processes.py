"""The command as a process: what it imports, signals, SIGKILL and resume, a reader that goes away, encodings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import steplog

WAITING = """
import sys, time
from steplog import Step, Workflow

wait = Workflow("waiting")

@wait.sub_step
async def patience(step: Step) -> str:
    if step.attempt == 1:
        print("waits", flush=True)
        import asyncio
        while not step.cancelled:
            await asyncio.sleep(0.01)
    return "waited"

@wait.sub_step(after=[patience])
def last() -> None: ...
"""

Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Starts `python -m steplog` in a folder of its own."""
    (tmp_path / "waiting.py").write_text(WAITING)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPLOG_")}

    def start(*arguments: str, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "steplog", *arguments],
            cwd=tmp_path,
            env={**environment, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def started_waiting(command: Command) -> subprocess.Popen[str]:
    """A run whose first sub-step is in progress."""
    process = command("run", "waiting", "--no-watch")
    assert process.stderr
    for line in process.stderr:
        if line == "waits\n":
            return process
    raise AssertionError(f"the run ended: {process.wait()}")


def test_help_imports_no_engine_and_no_driver() -> None:
    heavy = {"pydantic", "psycopg", "sqlite3", "orjson", "asyncio", "steplog.engine", "steplog.eventstore.events"}
    program = (
        "import sys\nfrom steplog.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & {heavy!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "resume-point" in done.stdout


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    assert all(getattr(steplog, name) is not None for name in steplog.__all__)
    assert set(steplog.__all__) <= set(dir(steplog))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = steplog.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_killed_run_is_resumed_by_another_process(command: Command) -> None:
    process = started_waiting(command)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    _, shown, advice = ended(command("show", "@last"))
    assert "stalled (its process is gone)" in shown
    assert "resume" in advice
    _, point, _ = ended(command("resume-point", "@last", "-o", "json"))
    assert [entry["sub_step"] for entry in json.loads(point)["run"]] == ["main/patience"]
    code, resumed, _ = ended(command("--module", "waiting", "resume", "@last", "-o", "json"))
    assert code == 0
    assert json.loads(resumed)["phases"]["main"]["sub_steps"]["patience"]["attempts"] == 2
    assert ended(command("replay", "@last"))[0] == 0


def test_a_job_whose_process_lives_is_refused_with_who_has_it(command: Command) -> None:
    process = started_waiting(command)
    code, _, said = ended(command("--module", "waiting", "resume", "@last"))
    process.kill()
    ended(process)
    assert code == 4
    assert f"pid {process.pid}" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_hands_its_job_back_and_says_how_to_resume(command: Command, number: signal.Signals) -> None:
    process = started_waiting(command)
    process.send_signal(number)
    code, _, said = ended(process)
    assert code == 128 + number
    assert "`steplog --module waiting resume " in said
    assert "`steplog resume " in ended(command("show", "@last"))[2]
    assert ended(command("--module", "waiting", "resume", "@last"))[0] == 0


def test_a_reader_that_goes_away_is_no_error(command: Command) -> None:
    assert ended(command("run", "steplog.examples.registration", "-P", "pace=0", "-q"))[0] == 0
    process = command("events", "@last", "-o", "jsonl")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 0)
    process.stderr.close()


def test_a_stream_that_is_not_utf8_gets_ascii(command: Command) -> None:
    ended(command("run", "steplog.examples.registration", "-P", "pace=0", "-q", "-P", "restaurant_name=Café 日本"))
    for arguments in (["show", "@last"], ["events", "@last"], ["ls"], ["show", "@last", "-o", "json"]):
        code, out, _ = ended(command(*arguments, PYTHONIOENCODING="ascii"))
        assert code == 0
        assert out.isascii()


def test_resume_finds_the_workflows_of_the_examples_by_itself(command: Command) -> None:
    failing = '{"pace": 0, "simulate": {"restaurantRegistration": "400"}}'
    assert ended(command("run", "steplog.examples.registration", "-q", "--input", failing))[0] == 1
    code, _, said = ended(command("resume", "@last"))
    assert code == 1
    assert "no workflow" not in said
