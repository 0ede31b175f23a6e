"""The commands: what they print where, in which form, and the exit code of every way they can end."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner, Result

from steplog.cli import JOB_STATUSES, explain, main
from steplog.engine import errors as engine
from steplog.engine import lookup
from steplog.engine.config import ConfigError
from steplog.eventstore import errors as log
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery
from steplog.projections.state import JobStatus
from steplog.terminal.console import Console

KITCHEN = """
from pydantic import BaseModel
from steplog import Context, Fatal, Step, Workflow, result

class Order(BaseModel):
    dishes: float = 1
    name: str = "soup"
    broken: bool = False

class Kitchen(Context):
    cooked: list[str] = []

cook = Workflow("cooking", input=Order, context=Kitchen)

@cook.sub_step
def chop(step: Step[Order, Kitchen]) -> str:
    print("chopping")
    step.context.cooked = [step.input.name]
    return step.input.name

@cook.sub_step(after=[chop])
def serve(step: Step[Order, Kitchen], name: str = result(chop)) -> str:
    if step.input.broken:
        raise Fatal("the plate fell")
    return f"{step.input.dishes} x {name}"
"""

Run = Callable[..., Result]


@pytest.fixture
def steplog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command in a folder of its own that has the module `kitchen`; fails unless it exits as expected."""
    (tmp_path / "kitchen.py").write_text(KITCHEN)
    (tmp_path / "pantry.py").write_text("from steplog import Workflow\none = Workflow('one')\ntwo = Workflow('two')\n")
    (tmp_path / "spoilt.py").write_text("1 / 0\n")
    (tmp_path / "hungry.py").write_text("import nothing_like_this\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, exits: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, input=input, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    yield run
    for name in ("kitchen", "pantry", "spoilt", "hungry"):
        sys.modules.pop(name, None)


def cooked(steplog: Run, *arguments: str, exits: int = 0) -> str:
    """The id of a job of the kitchen's workflow that was just run."""
    result = steplog("run", "kitchen", "-q", "-o", "json", *arguments, exits=exits)
    return str(json.loads(result.stdout)["job_id"])


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_prints_the_outcome_on_stdout_and_the_rest_on_stderr(steplog: Run) -> None:
    result = steplog("run", "kitchen:cook")
    assert re.fullmatch(r"cooking  (…|\.\.\.)\w{4}  \S completed  \S+ 2/2  event \d+  \S+\n", result.stdout)
    assert re.match(r"job [0-9a-f-]{36}\n", result.stderr)
    assert "chopping" in result.stderr


def test_run_as_json_prints_the_snapshot_and_nothing_else(steplog: Run) -> None:
    snapshot = json.loads(steplog("run", "kitchen", "-o", "json").stdout)
    assert snapshot["status"] == "completed"
    assert snapshot["context"] == {"cooked": ["soup"]}


def test_watch_without_a_terminal_prints_a_line_per_event(steplog: Run) -> None:
    result = steplog("run", "kitchen", "--watch")
    assert "SubStepCompleted" in result.stderr
    assert "serve" in result.stdout


def test_parameters_are_texts_that_the_schema_reads_and_json_where_asked(steplog: Run) -> None:
    result = steplog("run", "kitchen", "-o", "json", "-P", "dishes=1.5", "-P", 'name:="a=b"', "-P", "broken=no")
    assert json.loads(result.stdout)["input"] == {"dishes": 1.5, "name": "a=b", "broken": False}


def test_a_parameter_that_the_schema_would_ignore_is_refused(steplog: Run) -> None:
    result = steplog("run", "kitchen", "-P", "dishs=3", exits=2)
    assert "no field 'dishs': it has broken, dishes, name" in result.stderr
    assert not Path("steplog.db").exists()


def test_input_comes_from_a_file_or_stdin_and_parameters_go_on_top(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"dishes": 2, "name": "stew"}')
    from_file = steplog("run", "kitchen", "-o", "json", "--input", "@order.json", "-P", "dishes=3")
    assert json.loads(from_file.stdout)["input"] == {"dishes": 3.0, "name": "stew", "broken": False}
    from_stdin = steplog("run", "kitchen", "-o", "json", "--input", "-", input='{"name": "tea"}')
    assert json.loads(from_stdin.stdout)["input"]["name"] == "tea"


def test_a_failed_job_exits_1_and_says_how_to_go_on(steplog: Run) -> None:
    result = steplog("run", "kitchen", "-P", "broken=1", exits=1)
    outcome, why = result.stdout.splitlines()
    assert "failed" in outcome
    assert why.endswith("main/serve: Fatal: the plate fell")
    advised = re.search(r"go on with `steplog (--module kitchen resume \w+)`", result.stderr)
    assert advised
    assert "the plate fell" in steplog(*advised[1].split(), exits=1).stdout


def test_a_failed_job_is_shown_with_where_its_handler_raised(steplog: Run) -> None:
    cooked(steplog, "-P", "broken=1", exits=1)
    shown = steplog("show", "@last").stdout
    first, *frames, last = shown[shown.index("Traceback") :].splitlines()
    assert first.startswith("Traceback")
    assert 'kitchen.py", line' in frames[0]
    assert last.endswith("Fatal: the plate fell")


def test_an_example_is_resumed_without_saying_where_it_is(steplog: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "EXAMPLES", ("kitchen",))
    assert "`steplog resume " in steplog("run", "kitchen", "-P", "broken=1", exits=1).stderr


def test_the_same_key_runs_once_and_other_input_conflicts(steplog: Run) -> None:
    first = cooked(steplog, "--key", "table 5")
    assert cooked(steplog, "--key", "table 5") == first
    steplog("run", "kitchen", "--key", "table 5", "-P", "name=other", exits=4)


@pytest.mark.parametrize(
    ("arguments", "exits", "said"),
    [
        (["-P", "dishes=many"], 2, "input of cooking refused: dishes: "),
        (["-P", "dishes"], 2, "neither k=v nor k:=JSON"),
        (["-P", "dishes:=many"], 2, "is no JSON"),
        (["--input", "{"], 2, "is no JSON"),
        (["--input", "@nowhere.json"], 2, "nowhere.json"),
        (["--input", "[1]", "-P", "a=b"], 2, "--input is none"),
        (["--input", '{"dishes": NaN}'], 2, "dishes"),
        (["--limit", "5"], 2, "No such option"),
    ],
)
def test_input_that_does_not_fit_is_a_mistake_in_usage(
    steplog: Run, arguments: list[str], exits: int, said: str
) -> None:
    assert said in steplog("run", "kitchen", *arguments, exits=exits).stderr


@pytest.mark.parametrize(
    ("target", "exits", "said"),
    [
        ("kitchen:cooking", 0, "completed"),
        ("kitchen:baking", 3, "has no workflow 'baking': it declares cook"),
        ("pantry", 2, "declares several workflows: one, two"),
        ("json", 3, "declares none"),
        ("nowhere", 3, "no module 'nowhere'"),
        ("kitchen.py", 3, "no module 'kitchen.py'"),
        ("../kitchen", 3, "no module"),
        ("spoilt", 1, "cannot be imported: ZeroDivisionError"),
        ("hungry", 1, "cannot be imported: ModuleNotFoundError"),
        ("hungry", 1, "run it again with --debug to see where"),
    ],
)
def test_a_workflow_is_found_by_module_and_name(steplog: Run, target: str, exits: int, said: str) -> None:
    assert said in steplog("run", target, exits=exits).output


def test_the_current_folder_never_hides_what_is_installed(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')\n")
    assert "declares none" in steplog("run", "json", exits=3).stderr
    assert sys.path[-1] == str(tmp_path)


# --- resume ----------------------------------------------------------------------------------------------------------


def test_resume_runs_a_failed_job_on_and_says_how_it_went(steplog: Run) -> None:
    cooked(steplog, "-P", "broken=1", exits=1)
    assert "attempts" not in steplog("--module", "kitchen", "resume", "@failed", exits=1).stdout
    types = [json.loads(line)["type"] for line in steplog("events", "@last", "-o", "jsonl").stdout.splitlines()]
    assert "JobResumed" in types


def test_resume_looks_where_the_configuration_says(steplog: Run, tmp_path: Path) -> None:
    cooked(steplog, "-P", "broken=1", exits=1)
    assert "`steplog --module MODULE resume JOB`" in steplog("resume", "@last", exits=3).stderr
    (tmp_path / "steplog.toml").write_text('modules = ["kitchen"]\n')
    steplog("resume", "@last", exits=1)


def test_a_completed_job_cannot_be_resumed(steplog: Run) -> None:
    cooked(steplog)
    assert "is completed" in steplog("resume", "@last", "--module", "kitchen", exits=4).stderr


# --- naming jobs -----------------------------------------------------------------------------------------------------


def test_a_job_is_named_by_id_suffix_key_or_recency(steplog: Run) -> None:
    job_id = cooked(steplog, "--key", "table 5")
    for name in (job_id, job_id[-4:], f"…{job_id[-5:]}", f"...{job_id[-4:]}", job_id.upper(), "@last", "key:table 5"):
        assert json.loads(steplog("show", name, "-o", "json").stdout)["job_id"] == job_id


@pytest.mark.parametrize("name", ["ffff", "fff", "@failed", "key:none", "%", "_%_%", "01' OR '1'='1"])
def test_a_job_that_is_not_there_is_not_found(steplog: Run, name: str) -> None:
    cooked(steplog)
    assert "see `steplog ls`" in steplog("show", name, exits=3).stderr


def test_a_suffix_of_two_jobs_lists_them(steplog: Run) -> None:
    ids = [cooked(steplog) for _ in range(2)]
    common = "0a20"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLiteStore, "find", lambda store, suffix, limit=10: ids)
        said = steplog("show", common, exits=2).stderr
    assert all(job_id in said for job_id in ids)


def test_every_id_that_ls_shows_can_be_pasted(steplog: Run) -> None:
    ids = {cooked(steplog) for _ in range(3)}
    names = [line.split()[0] for line in steplog("ls").stdout.splitlines()[1:]]
    assert {json.loads(steplog("show", name, "-o", "json").stdout)["job_id"] for name in names} == ids


# --- ls --------------------------------------------------------------------------------------------------------------


def test_ls_filters_and_pages(steplog: Run) -> None:
    ids = [cooked(steplog), cooked(steplog, "-P", "broken=1", "--key", "k", exits=1), cooked(steplog)]

    def listed(*arguments: str) -> list[str]:
        return [json.loads(line)["job_id"] for line in steplog("ls", "-o", "jsonl", *arguments).stdout.splitlines()]

    assert listed() == ids[::-1]
    assert listed("--status", "failed") == listed("--key", "k") == listed("--failed-sub-step", "serve") == [ids[1]]
    assert listed("--workflow", "other") == listed("--since", "2999-01-01T00:00:00Z") == listed("--tag", "a=b") == []
    assert listed("--since", "1h", "--limit", "2") == ids[:0:-1]
    page = json.loads(steplog("ls", "-o", "json", "--limit", "2").stdout)
    assert page["next_cursor"] == ids[1]
    assert listed("--cursor", page["next_cursor"]) == [ids[0]]
    assert json.loads(steplog("ls", "-o", "json").stdout)["next_cursor"] is None


def test_the_cursor_that_a_table_offers_can_be_pasted(steplog: Run) -> None:
    ids = [cooked(steplog), cooked(steplog)]
    offered = re.search(r"--cursor (\S+)", steplog("ls", "--limit", "1").stderr)
    assert offered
    assert ids[0][-4:] in steplog("ls", "--cursor", offered[1]).stdout


def test_an_empty_list_says_so_on_stderr(steplog: Run) -> None:
    cooked(steplog)
    result = steplog("ls", "--status", "paused")
    assert (result.stdout, result.stderr) == ("", "no such jobs in sqlite:///steplog.db\n")


def test_the_statuses_that_ls_takes_are_those_that_jobs_have() -> None:
    assert get_args(JobStatus) == JOB_STATUSES


# --- show, events, replay, resume-point ------------------------------------------------------------------------------


def test_show_goes_back_to_a_version_or_a_time(steplog: Run) -> None:
    cooked(steplog)
    events = [json.loads(line) for line in steplog("events", "@last", "-o", "jsonl").stdout.splitlines()]
    chopped = next(event for event in events if event["type"] == "SubStepCompleted")
    at_version = json.loads(steplog("show", "@last", "-o", "json", "--at", str(chopped["version"])).stdout)
    assert at_version["phases"]["main"]["sub_steps"]["serve"]["status"] == "pending"
    at_time = json.loads(steplog("show", "@last", "-o", "json", "--at", events[0]["recorded_at"]).stdout)
    assert at_time["version"] in (1, 2)
    for outside in ("0", "999", "1990-01-01T00:00:00Z", "soon"):
        steplog("show", "@last", "--at", outside, exits=2)


def test_show_can_be_the_context_or_the_whole_state(steplog: Run) -> None:
    cooked(steplog)
    assert steplog("show", "@last", "--context").stdout == 'cooked  ["soup"]\n'
    assert json.loads(steplog("show", "@last", "--context", "-o", "json").stdout) == {"cooked": ["soup"]}
    assert "writers" in json.loads(steplog("show", "@last", "--raw").stdout)


def test_events_are_chosen_by_version_type_and_number(steplog: Run) -> None:
    cooked(steplog)

    def versions(*arguments: str) -> list[int]:
        read = json.loads(steplog("events", "@last", "-o", "json", *arguments).stdout)
        return [event["version"] for event in read]

    last = versions()[-1]
    assert versions() == list(range(1, last + 1))
    assert versions("--reverse") == versions()[::-1]
    assert versions("--after", "3", "--limit", "2") == [4, 5]
    assert versions("--reverse", "--limit", "1") == [last]
    assert len(versions("--type", "substepstarted", "--type", "SubStepCompleted")) == 4
    assert versions("--after", "999") == []
    steplog("events", "@last", "--type", "SubStepEnded", exits=2)


def test_events_are_a_line_each(steplog: Run) -> None:
    cooked(steplog)
    lines = steplog("events", "@last").stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert any("main/chop" in line and '"soup"' in line for line in lines)


def test_following_ends_with_the_job(steplog: Run) -> None:
    cooked(steplog)
    assert steplog("events", "@last", "--follow").stdout == steplog("events", "@last").stdout
    steplog("events", "@last", "--follow", "--reverse", exits=2)
    steplog("events", "@last", "--follow", "-o", "json", exits=2)


def test_replay_folds_the_log_to_what_the_store_shows(steplog: Run) -> None:
    cooked(steplog)
    result = steplog("replay", "@last")
    assert "the same as the store's head" in result.stderr
    assert "JobCompleted" in result.stdout
    assert json.loads(steplog("replay", "@last", "-o", "json").stdout)["matches_head"] is True
    early = json.loads(steplog("replay", "@last", "-o", "json", "--until", "3").stdout)
    assert (early["version"], early["matches_head"]) == (3, None)
    assert len(steplog("replay", "@last", "-o", "jsonl", "--until", "3").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    "change",
    ["UPDATE jobs SET status = 'failed'", "UPDATE jobs SET done = 1", "UPDATE jobs SET workflow = 'other'"],
)
def test_replay_finds_a_head_that_the_log_does_not_fold_to(steplog: Run, tmp_path: Path, change: str) -> None:
    cooked(steplog)
    alter(tmp_path, change)
    assert "does not fold to its stored head" in steplog("replay", "@last", exits=7).stderr


def test_a_damaged_log_is_named_by_version_with_exit_7(steplog: Run, tmp_path: Path) -> None:
    cooked(steplog)
    alter(tmp_path, "UPDATE events SET data = '{}' WHERE version = 4")
    result = steplog("events", "@last", exits=7)
    assert "version 4" in result.stderr
    assert len(result.stdout.splitlines()) == 3


def alter(folder: Path, statement: str) -> None:
    """Change the database behind the store's back."""
    with closing(sqlite3.connect(folder / "steplog.db")) as connection:
        connection.execute("DROP TRIGGER events_refuse_update")
        connection.execute(statement)
        connection.commit()


def test_the_resume_point_says_what_would_run(steplog: Run) -> None:
    cooked(steplog, "-P", "broken=1", exits=1)
    assert json.loads(steplog("resume-point", "@last", "-o", "json").stdout)["failed"] == ["main/serve"]
    result = steplog("resume-point", "@last")
    assert "nothing runs until somebody resumes it" in result.stdout
    assert "failed   1: main/serve" in result.stdout
    assert "`steplog resume " in result.stderr


def test_how_to_go_on_is_said_of_the_job_as_it_is_and_not_as_it_was(steplog: Run) -> None:
    job_id = cooked(steplog, "-P", "broken=1", exits=1)
    assert "`steplog resume " in steplog("show", job_id).stderr
    failed = json.loads(steplog("events", job_id, "--type", "JobFailed", "-o", "jsonl").stdout)
    assert "resume" not in steplog("show", job_id, "--at", str(failed["version"])).stderr
    assert "resume" not in steplog("show", cooked(steplog), "--at", "1").stderr


# --- the store, the settings -----------------------------------------------------------------------------------------


def test_reading_makes_no_database(steplog: Run, tmp_path: Path) -> None:
    result = steplog("ls", exits=6)
    assert f"there is no database at {tmp_path / 'steplog.db'}\n  run a workflow first" in result.stderr
    assert not (tmp_path / "steplog.db").exists()


def test_migrate_names_what_it_does_and_does_it_once(steplog: Run, tmp_path: Path) -> None:
    planned = steplog("db", "migrate", "--dry-run").stdout
    assert planned
    assert not (tmp_path / "steplog.db").exists()
    assert steplog("db", "migrate").stdout == planned
    assert steplog("db", "migrate").stdout == ""
    assert "up to date" in steplog("db", "status").stdout


def test_commands_that_are_advised_work_as_pasted(steplog: Run) -> None:
    advised = steplog("run", "kitchen", "-P", "broken=1", "--db", "sqlite:///other.db", exits=1).stderr
    assert re.search(r"`steplog --db sqlite:///other.db --module kitchen resume \w+`", advised)


def test_a_workflow_that_two_modules_declare_is_not_guessed(steplog: Run, tmp_path: Path) -> None:
    steplog("run", "kitchen", "-P", "broken=1", exits=1)
    (tmp_path / "canteen.py").write_text((tmp_path / "kitchen.py").read_text())
    refused = steplog("--module", "kitchen", "--module", "canteen", "resume", "@last", exits=2).stderr
    assert "declared by kitchen and by canteen\n  name only one of them" in refused


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "postgresql://u:secret@127.0.0.1:1/d"])
def test_a_store_out_of_reach_is_one_sentence_without_its_password(steplog: Run, url: str) -> None:
    result = steplog("--db", url, "ls", exits=6)
    assert "secret" not in result.output
    assert len(result.stderr.splitlines()) == 2


def test_config_says_where_each_value_comes_from(steplog: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "steplog.toml").write_text('modules = ["kitchen"]\n')
    monkeypatch.setenv("STEPLOG_DATABASE_URL", "postgresql://u:secret@h/d")
    settings = json.loads(steplog("config", "-o", "json").stdout)
    assert settings["database_url"] == {"value": "postgresql://u:***@h/d", "origin": "STEPLOG_DATABASE_URL"}
    assert settings["modules"] == {"value": ["kitchen"], "origin": "steplog.toml"}
    assert json.loads(steplog("config", "-o", "json", "--db", "x").stdout)["database_url"]["origin"] == "--db"
    (tmp_path / "steplog.toml").write_text("modules = \n")
    steplog("config", exits=2)


def test_options_count_wherever_they_stand(steplog: Run) -> None:
    cooked(steplog)
    assert steplog("-o", "json", "ls").stdout == steplog("ls", "-o", "json").stdout
    assert steplog("db", "-o", "json", "status").stdout == steplog("-o", "json", "db", "status").stdout


def test_version_names_the_package(steplog: Run) -> None:
    assert steplog("version").stdout.startswith("steplog ")
    assert set(json.loads(steplog("version", "-o", "json").stdout)) == {"steplog", "python"}


# --- errors ----------------------------------------------------------------------------------------------------------

ERRORS: list[tuple[Exception, int]] = [
    (engine.InputRefused("w", ["bad"]), 2),
    (log.PayloadRefused("input.a", "NaN"), 2),
    (log.AmbiguousJob("abcd", ["1", "2"]), 2),
    (engine.ValueRefused("context", ["bad"]), 2),
    (engine.AmbiguousSubStep("id", "s", ["a/s", "b/s"]), 2),
    (engine.SubStepNotFound("id", "s", ["a"]), 3),
    (ConfigError("steplog.toml: bad"), 2),
    (log.JobNotFound("abcd"), 3),
    (engine.WorkflowNotFound("w"), 3),
    (engine.ModuleMissing("m"), 3),
    (log.KeyConflict("w", "k", "id"), 4),
    (log.WrongState("id", "completed", "run it", []), 4),
    (engine.ActionRefused("id", "completed", "pause", [], "it has ended"), 4),
    (log.JobOwned("id", "worker", None, "on host, pid 1"), 4),
    (engine.PlanMismatch("id", ["x"]), 4),
    (engine.OwnershipLost("id", "x"), 4),
    (log.StoreUnavailable(), 6),
    (log.OutcomeUnknown(), 6),
    (log.StoreNotMigrated(), 6),
    (log.StoreNewer(), 6),
    (log.DamagedLog("id", 3, "x"), 7),
    (log.UnknownEvent("id", 3, "x"), 7),
    (log.StoreDamaged(), 7),
    (engine.ReplayMismatch("id", ["x"]), 7),
    (engine.Interrupted("id", 2), 130),
    (engine.Interrupted("id", 15), 143),
    (ValueError("x"), 1),
]


@pytest.mark.parametrize(("error", "exits"), ERRORS, ids=lambda value: type(value).__name__)
def test_each_error_has_its_exit_code(error: Exception, exits: int) -> None:
    failure = explain(error, Console())
    assert failure.exit_code == exits
    assert failure.sentence


def test_who_owns_a_job_is_said() -> None:
    failure = explain(log.JobOwned("id", "worker", None, "on host, pid 1"), Console())
    assert "pid 1" in failure.sentence
    assert "`steplog events --follow id`" in str(failure.next_step)


def test_an_interrupted_job_says_how_to_resume_it() -> None:
    assert "`steplog resume id`" in str(explain(engine.Interrupted("id", 15), Console()).next_step)


def test_the_unexpected_is_a_sentence_and_a_traceback_only_on_demand(
    steplog: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(store: SQLiteStore, query: HeadQuery) -> Any:
        raise LookupError("a\x1b[2J\nb")

    cooked(steplog)
    monkeypatch.setattr(SQLiteStore, "heads", broken)
    said = steplog("ls", exits=1).stderr
    assert said == ("steplog: unexpected LookupError: a\\x1b[2J b\n  run it again with --debug to see where\n")
    assert "Traceback" in steplog("ls", "--debug", exits=1).stderr


def test_ctrl_c_outside_of_a_run_is_130_without_a_word(steplog: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(store: SQLiteStore, query: HeadQuery) -> Any:
        raise KeyboardInterrupt

    cooked(steplog)
    monkeypatch.setattr(SQLiteStore, "heads", interrupted)
    assert steplog("ls", exits=130).output == ""
