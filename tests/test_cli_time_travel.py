"""Commands that look at a job over time, on a registration whose worker was killed and which was resumed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from json_patch import applied

from steplog import open_store
from steplog.cli import main
from steplog.eventstore.events import Event
from steplog.eventstore.store import HeadQuery
from steplog.examples.registration import demo
from steplog.projections.evolve import fold
from steplog.terminal.look import Look
from steplog.terminal.replay import key_by_key
from steplog.terminal.tree import View

Run = Callable[..., Result]
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo ran: one job, killed and resumed."""
    folder = tmp_path_factory.mktemp("demo")
    assert demo.run_demo(folder, out=StringIO()) == 0
    return folder


@pytest.fixture(scope="module")
def log(folder: Path) -> list[Event]:
    with closing(open_store(f"sqlite:///{folder / demo.STORE_FILE}")) as store:
        (head,) = store.heads(HeadQuery())
        return list(store.read(head.job_id))


@pytest.fixture
def steplog(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STEPLOG_DATABASE_URL", f"sqlite:///{demo.STORE_FILE}")

    def run(*arguments: str, exits: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    return run


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def version_of(log: list[Event], type: str, sub_step: str | None = None) -> int:
    """The first event of the type."""
    return next(event.version for event in log if event.type == type and sub_step in (None, event.data.get("sub_step")))


def take_over(log: list[Event]) -> Event:
    return next(event for event in log if event.type == "JobClaimed" and event.data["epoch"] == 2)


# --- timeline --------------------------------------------------------------------------------------------------------


def test_the_timeline_shows_the_crash_and_the_import_on_both_sides_of_it(steplog: Run, log: list[Event]) -> None:
    shown = document(steplog("timeline", "@last", "-o", "json"))
    crash = [gap for gap in shown["gaps"] if gap["cause"] == "crashed"]
    claim = take_over(log)
    before = log[claim.version - 2].recorded_at
    assert [(gap["started_at"], gap["ended_at"]) for gap in crash] == [(before, claim.recorded_at)]
    phase2 = {line["name"]: line for line in shown["phases"][1]["sub_steps"]}
    assert [of["status"] for of in phase2["menuImport"]["attempts"]] == ["interrupted", "completed"]
    assert [of["status"] for of in phase2["paymentConfig"]["attempts"]] == ["failed"] * 3
    assert len(phase2["paymentConfig"]["waits"]) == 2


def test_the_timeline_in_a_terminal_is_lines_of_text(steplog: Run) -> None:
    shown = steplog("timeline", "@last").stdout
    assert "taken over" in shown
    assert "menuImport" in shown


def test_the_timeline_is_written_to_a_file_where_its_name_ends_in_svg(steplog: Run, folder: Path) -> None:
    result = steplog("timeline", "@last", "-o", "out.svg")
    assert (result.stdout, result.stderr) == ("", "wrote out.svg\n")
    picture = ElementTree.parse(folder / "out.svg").getroot()
    assert "crashed" in "".join(picture.itertext())


def test_a_picture_that_cannot_be_written_is_refused_with_the_reason(steplog: Run) -> None:
    assert "No such file" in steplog("timeline", "@last", "-o", "nowhere/out.svg", exits=2).stderr


def test_only_the_timeline_is_a_picture(steplog: Run) -> None:
    assert "'out.svg' is not one of" in steplog("show", "@last", "-o", "out.svg", exits=2).stderr
    assert "is not one of" in steplog("timeline", "@last", "-o", "out.png", exits=2).stderr


# --- at a version, at a time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["show", "resume-point", "timeline"])
def test_a_version_and_its_time_show_the_same(steplog: Run, log: list[Event], command: str) -> None:
    before = log[take_over(log).version - 2]
    by_version = document(steplog(command, "@last", "--at", str(before.version), "-o", "json"))
    by_time = document(steplog(command, "@last", "--at", before.recorded_at, "-o", "json"))
    assert by_version == by_time
    assert by_version["version"] == before.version
    assert by_version["status"] == "running"


def test_the_resume_point_of_the_past_names_what_was_in_progress_and_advises_nothing(
    steplog: Run, log: list[Event]
) -> None:
    at = str(take_over(log).version - 1)
    point = document(steplog("resume-point", "@last", "--at", at, "-o", "json"))
    assert "phase2/menuImport" in [entry["sub_step"] for entry in point["run"]]
    shown = steplog("resume-point", "@last", "--at", at)
    assert "menuImport" in shown.stdout
    assert shown.stderr == ""


@pytest.mark.parametrize("at", ["0", "9999", "2020-01-01", "yesterday"])
def test_a_version_that_the_job_never_had_is_refused(steplog: Run, at: str) -> None:
    assert "--at" in steplog("timeline", "@last", "--at", at, exits=2).stderr
    assert "FROM" in steplog("diff", "@last", at, exits=2).stderr


# --- diff, compare ---------------------------------------------------------------------------------------------------


def test_the_patch_makes_one_snapshot_the_other(steplog: Run, log: list[Event]) -> None:
    claim = take_over(log).version
    at = {version: document(steplog("show", "@last", "--at", str(version), "-o", "json")) for version in (5, claim)}
    assert applied(at[5], document(steplog("diff", "@last", "5", str(claim), "-o", "json"))) == at[claim]
    assert applied(at[claim], document(steplog("diff", "@last", str(claim), "5", "-o", "json"))) == at[5]
    lines = steplog("diff", "@last", "5", str(claim), "-o", "jsonl").stdout.splitlines()
    assert applied(at[5], [json.loads(line) for line in lines]) == at[claim]


def test_a_diff_goes_up_to_now_unless_told_otherwise(steplog: Run) -> None:
    before = document(steplog("show", "@last", "--at", "5", "-o", "json"))
    now = document(steplog("show", "@last", "-o", "json"))
    assert applied(before, document(steplog("diff", "@last", "5", "-o", "json"))) == now


def test_a_diff_for_people_names_place_and_values(steplog: Run, log: list[Event]) -> None:
    done = version_of(log, "SubStepCompleted", "menuImport")
    shown = steplog("diff", "@last", str(done - 1), str(done)).stdout
    values = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("phase2/menuImport/")}
    assert values["phase2/menuImport/status"][-2:] == ["✓", "completed"]
    assert re.fullmatch(r"\+[\d.]+m?s", values["phase2/menuImport/completed_at"][-1])
    assert re.fullmatch(r"[\d.]+m?s", values["phase2/menuImport/seconds"][-1])
    at = steplog("--utc", "diff", "@last", str(done - 1), str(done)).stdout
    assert f'"{log[done - 1].recorded_at}"' in at
    assert "updated_at" not in shown
    assert "nothing changed" in steplog("diff", "@last", "5", "5").stdout


def test_a_job_parts_from_itself_nowhere(steplog: Run) -> None:
    assert document(steplog("compare", "@last", "@last", "-o", "json"))["divergence"] is None
    assert "the same as far as" in steplog("compare", "@last", "@last").stdout


def test_jobs_part_where_one_was_given_something_else_and_did_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saucepan.py").write_text(
        "from pydantic import BaseModel\nfrom steplog import Step, Workflow\n"
        "class Order(BaseModel):\n    dish: str = 'soup'\n"
        "boil = Workflow('boiling', input=Order)\nclean = Workflow('cleaning')\n"
        "@boil.sub_step\ndef fill() -> int:\n    return 1\n"
        "@boil.sub_step(after=[fill])\ndef heat(step: Step[Order]) -> str:\n    return step.input.dish\n"
        "@clean.sub_step\ndef wipe() -> None: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("STEPLOG_DATABASE_URL", raising=False)

    def run(*arguments: str, exits: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    for key, dish in (("a", "soup"), ("b", "stew")):
        run("run", "saucepan:boil", "--key", key, "-P", f"dish={dish}")
    run("run", "saucepan:clean", "--key", "c")
    found = document(run("compare", "key:a", "key:b", "-o", "json"))
    assert [each["path"] for each in found["given"]] == [["input", "dish"]]
    assert found["divergence"]["place"] == "main/heat"
    assert found["divergence"]["differences"] == [{"path": ["result"], "a": "soup", "b": "stew"}]
    assert "first divergence: main/heat" in run("compare", "key:a", "key:b").stdout
    assert "nothing to compare" in run("compare", "key:a", "key:c", exits=2).stderr
    sys.modules.pop("saucepan", None)


# --- replay, step by step --------------------------------------------------------------------------------------------


def test_replay_goes_on_with_enter_and_stops_with_q(monkeypatch: pytest.MonkeyPatch, log: list[Event]) -> None:
    keys = iter("\r\nq")
    monkeypatch.setattr("click.getchar", lambda: next(keys))
    states = [fold(log[:version]) for version in range(1, len(log) + 1)]
    steps = key_by_key(zip(log, states, strict=True), lambda state: View(state, "b617", state["recorded_at"], Look()))
    assert [event.version for event, _ in steps] == [1, 2, 3]


def test_replay_waits_for_whoever_sits_at_a_terminal(folder: Path) -> None:
    command = [sys.executable, "-m", "steplog", "--db", f"sqlite:///{demo.STORE_FILE}", "replay", "@last"]
    assert "\n1 events folded" in until_q_is_heard([*command, "--step-through"], folder)


def test_replay_that_nobody_can_answer_does_not_wait(steplog: Run, log: list[Event]) -> None:
    shown = steplog("replay", "@last", "--step-through")
    assert "q: stop" not in shown.stdout
    assert f"{len(log)} events folded" in shown.stderr


def until_q_is_heard(command: list[str], folder: Path) -> str:
    """What the command writes to a terminal on which nobody types anything but `q`, from its first question on."""
    master, slave = pty.openpty()
    process = subprocess.Popen(command, cwd=folder, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    written = b""
    try:
        deadline = time.monotonic() + PATIENCE_S
        while (more := read(master)) is not None:
            assert time.monotonic() < deadline, written
            written += more
            if (
                not more and b"q: stop" in written
            ):  # again and again: what is typed before the terminal is set up gets lost
                os.write(master, b"q")
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return written.decode()


def read(master: int) -> bytes | None:
    """What a process has written lately; None once it has ended."""
    ready, _, _ = select.select([master], [], [], 0.1)
    try:
        return os.read(master, 65536) if ready else b""
    except OSError:  # what Linux answers once the other end is closed
        return None
