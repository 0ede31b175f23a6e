"""The commands that do something to a job: what they take, what they say, in which form, and how they end."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from steplog.cli import main
from steplog.commands.operating import COMMANDS

KITCHEN = """
from pydantic import BaseModel
from steplog import Context, Fatal, Step, Workflow, result

class Order(BaseModel):
    dishes: int = 1
    broken: bool = True

class Kitchen(Context):
    cooked: list[str] = []
    table: int | None = None

cook = Workflow("cooking", input=Order, context=Kitchen)
before, after = cook.phase("before"), cook.phase("after")

@before.sub_step
def chop(step: Step[Order, Kitchen]) -> str:
    step.context.cooked = ["leek"]
    return "leek"

@before.sub_step(after=[chop])
def fry(step: Step[Order, Kitchen], of: str = result(chop)) -> int:
    if step.input.broken:
        raise Fatal("the pan fell")
    return step.input.dishes

@before.sub_step(name="wash", optional=True, after=[fry])
def wash_pan() -> None: ...

@after.sub_step(name="wash")
def wash_plates(step: Step[Order, Kitchen], dishes: int = result(fry)) -> int:
    return dishes
"""

Run = Callable[..., Result]


@pytest.fixture
def steplog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command in a folder with a job of `kitchen` that failed; fails unless it exits as expected."""
    (tmp_path / "kitchen.py").write_text(KITCHEN)
    (tmp_path / "steplog.toml").write_text('modules = ["kitchen"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, exits: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, input=input, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    run("run", "kitchen", exits=1)
    yield run
    sys.modules.pop("kitchen", None)


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def job(steplog: Run) -> Any:
    return document(steplog("show", "@last", "-o", "json"))


def last_event(steplog: Run, type: str) -> Any:
    return document(steplog("events", "@last", "--type", type, "--reverse", "--limit", "1", "-o", "json"))[0]["data"]


def test_every_command_says_who_did_it_and_why(steplog: Run) -> None:
    steplog("set", "@last", "table:=5", "--by", "anna", "--reason", "they moved")
    assert last_event(steplog, "ContextChanged") == {
        "set": {"table": 5}, "unset": [], "by": "anna", "reason": "they moved",
    }  # fmt: skip
    steplog("cancel", "@last")
    assert last_event(steplog, "JobCancelled")["by"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_each_command_takes_who_why_and_a_request_id(steplog: Run, command: Any) -> None:
    shown = steplog(command.name, "--help").stdout
    assert all(option in shown for option in ("--by", "--reason", "--request-id", "-o, --output"))


def test_a_line_says_what_was_appended_and_what_happens_next(steplog: Run) -> None:
    said = steplog("retry", "@last").stdout
    found = re.fullmatch(
        r"JobResumed \((\d+)\): job (?:…|\.\.\.)(\w+) is queued: `steplog (.*)`, or a worker, runs it on\n", said
    )
    assert found
    assert found[3] == f"resume {found[2]}"
    steplog(*found[3].split(), exits=1)


def test_as_json_it_is_a_document(steplog: Run) -> None:
    version = job(steplog)["version"]
    done = document(steplog("skip", "@last", "fry", "-o", "json"))
    assert done["appended"] == [{"version": version + 1, "type": "SubStepSkipped"}]
    assert (done["status"], done["version"], done["repeated"]) == ("failed", version + 1, False)
    assert done["next"].startswith("steplog resume ")
    assert document(steplog("cancel", "@last", "-o", "json"))["next"] is None


def test_the_same_request_is_done_once(steplog: Run) -> None:
    steplog("retry", "@last", "--request-id", "r1")
    version = job(steplog)["version"]
    assert steplog("retry", "@last", "--request-id", "r1").stdout.startswith("done before: ")
    assert job(steplog)["version"] == version


@pytest.mark.parametrize(
    ("arguments", "exits", "said"),
    [
        (["skip", "@last", "boil"], 3, "no sub-step 'boil'; it has "),
        (["skip", "@last", "fri"], 3, "it has fry\n"),
        (["skip", "@last", "wash"], 2, "is ambiguous: before/wash, after/wash"),
        (["skip", "@last", "after/wash"], 4, "cannot skip: it needs before/fry (failed); nothing is allowed now"),
        (["complete", "@last", "fry", "--result", "x"], 2, "is no JSON"),
        (
            ["complete", "@last", "fry", "--result", '"x"'],
            2,
            "result of before/fry refused: Input should be a valid int",
        ),
        (["complete", "@last", "chop"], 4, "it has settled: only a reset makes it undone; allowed now: "),
        (["fail", "@last", "fry"], 4, "it has failed already; allowed now: retry, skip, complete, reset"),
        (["complete", "@last", "fry"], 2, "give a value that fits: it is JSON"),
        (["retry", "@last", "--sub-step", "chop"], 4, "reset it"),
        (["pause", "@last"], 4, "it stands still already; allowed now: resume, cancel, retry"),
        (["pause", "@last", "--by", "engine"], 2, "by refused"),
        (["set", "@last"], 2, "name a field"),
        (["set", "@last", "tabel=1"], 2, "no field 'tabel': it has cooked, table"),
        (["set", "@last", "table=x"], 2, "context refused: table"),
        (["edit-input", "@last"], 2, "give the input"),
        (["edit-input", "@last", "{}", "-P", "dishes=many"], 2, "input of cooking refused: dishes"),
        (["edit-input", "@last", "-P", "dishs=3"], 2, "no field 'dishs': it has "),
        (["edit-input", "@last", "@nowhere.json"], 2, "nowhere.json"),
        (["signal", "@last", "go", "x"], 2, "is no JSON"),
        (["signal", "ffff", "go"], 3, "no job ffff"),
        (["fork", "@last", "--at", "999"], 2, "none of the job's versions"),
        (["reset", "@last", "before/wash", "--dry-run"], 4, "nothing has happened to it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused_says_why_and_appends_nothing(
    steplog: Run, arguments: list[str], exits: int, said: str
) -> None:
    version = job(steplog)["version"]
    result = steplog(*arguments, exits=exits)
    assert said in result.stderr
    assert result.stdout == ""
    assert job(steplog)["version"] == version


def test_what_was_done_by_hand_is_what_the_job_goes_on_with(steplog: Run) -> None:
    steplog("complete", "@last", "fry", "--result", "3", "--reason", "fried at the neighbour's")
    steplog("skip", "@last", "before/wash", "--reason", "no pan")
    steplog("resume", "@last")
    assert job(steplog)["phases"]["after"]["sub_steps"]["wash"]["result"] == 3
    assert "fried at the neighbour's" in steplog("show", "@last").stdout
    assert "no pan" in steplog("events", "@last", "--type", "SubStepSkipped").stdout


def test_fields_of_the_input_are_edited_one_by_one_or_all_together(steplog: Run, tmp_path: Path) -> None:
    steplog("edit-input", "@last", "-P", "dishes=4")
    assert job(steplog)["input"] == {"dishes": 4, "broken": True}
    (tmp_path / "order.json").write_text('{"dishes": 5}')
    steplog("edit-input", "@last", "@order.json", "-P", "broken:=false")
    assert job(steplog)["input"] == {"dishes": 5, "broken": False}
    steplog("resume", "@last")
    assert job(steplog)["status"] == "completed"


def test_fields_of_the_context_are_set_and_taken_away(steplog: Run) -> None:
    steplog("set", "@last", "table:=3", 'cooked:=["kale"]')
    steplog("set", "@last", "--unset", "table")
    assert job(steplog)["context"] == {"cooked": ["kale"]}


def test_a_reset_says_beforehand_what_it_would_be(steplog: Run) -> None:
    steplog("edit-input", "@last", "-P", "broken:=false")
    steplog("resume", "@last")
    version = job(steplog)["version"]
    assert steplog("reset", "@last", "chop", "--dry-run").stdout.splitlines() == [
        "4 sub-steps back to pending: before/chop, before/fry, before/wash, after/wash",
        "context goes back to cooked = []",
        "the job is opened again",
    ]
    foreseen = document(steplog("reset", "@last", "fry", "--dry-run", "-o", "json"))
    assert foreseen["reset"] == ["before/fry", "before/wash", "after/wash"]
    assert (foreseen["set"], foreseen["unset"], foreseen["reopens"]) == ({}, [], True)
    assert job(steplog)["version"] == version
    steplog("reset", "@last", "chop", "--same-key")
    assert last_event(steplog, "SubStepReset")["same_key"] is True
    steplog("resume", "@last")
    assert job(steplog)["status"] == "completed"


def test_a_signal_carries_json(steplog: Run) -> None:
    steplog("signal", "@last", "approved", '{"by": 1}', "--request-id", "s1")
    signal = last_event(steplog, "SignalReceived")
    assert (signal["name"], signal["payload"], signal["signal_id"]) == ("approved", {"by": 1}, "s1")


def test_a_fork_is_a_job_of_its_own_with_its_edits(steplog: Run) -> None:
    parent = job(steplog)
    steplog("fork", "@last", "--at", str(parent["version"]), "--set", "table:=2", "-P", "broken:=false")
    forked = job(steplog)
    assert forked["job_id"] != parent["job_id"]
    assert (forked["context"], forked["input"]) == ({"cooked": ["leek"], "table": 2}, {"dishes": 1, "broken": False})
    assert "sub-steps inherited" in steplog("events", "@last", "--type", "JobForked").stdout
    steplog("resume", "@last")
    assert job(steplog)["status"] == "completed"
    assert "the same as the store's head" in steplog("replay", "@last").stderr
    assert job_of(steplog, parent["job_id"])["version"] == parent["version"]


def job_of(steplog: Run, job_id: str) -> Any:
    return document(steplog("show", job_id, "-o", "json"))


@pytest.mark.parametrize("command", [["cancel", "@last"], ["reset", "@last", "chop"]])
def test_at_a_terminal_what_undoes_work_is_asked_first(
    steplog: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    version = job(steplog)["version"]
    monkeypatch.setattr("steplog.commands.operating._is_a_terminal", lambda: True)
    assert "[y/N]" in steplog(*command, exits=1, input="n\n").stderr
    assert job(steplog)["version"] == version
    steplog(*command, "-y")
    assert job(steplog)["version"] > version


def test_without_the_code_values_are_plain_json(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "steplog.toml").unlink()
    steplog("complete", "@last", "fry", "--result", '"anything"')
    steplog("set", "@last", "tabel=1", exits=2)
    assert "`steplog --module MODULE resume JOB`" in steplog("resume", "@last", exits=3).stderr


def test_a_reason_to_resume_is_in_the_log(steplog: Run) -> None:
    steplog("resume", "@last", "--reason", "a new pan", exits=1)
    assert last_event(steplog, "JobResumed")["reason"] == "a new pan"


def test_a_job_that_has_ended_is_not_resumed_and_says_what_may_be_done_instead(steplog: Run) -> None:
    steplog("cancel", "@last")
    assert (
        "cannot resume: it has ended: reset a sub-step to open it again" in steplog("resume", "@last", exits=4).stderr
    )


UNDONE = """
from steplog import Fatal, Workflow

trip = Workflow("trip", compensate_on=["failed"])

@trip.sub_step
def book() -> None: ...

@trip.compensate(book)
def give_back() -> None: ...

@trip.sub_step(after=[book])
def pay() -> None:
    raise Fatal("no money")
"""


def test_a_job_that_was_undone_is_not_said_to_go_on(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "undone.py").write_text(UNDONE)
    said = steplog("run", "undone:trip", exits=1).stderr
    assert "what it had done is undone; `steplog --module undone fork " in said
    assert "go on with" not in said
    steplog("--module", "undone", "resume", "@last", exits=4)
    steplog("--module", "undone", "fork", "@last")
    sys.modules.pop("undone", None)
