"""verify, anchor, doctor, export, import and db backup as commands: exit codes, what goes where, whole files only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from steplog import Workflow
from steplog.cli import main
from steplog.engine.jobs import run_blocking
from steplog.eventstore.sqlite import SQLiteStore

Run = Callable[..., Result]


@pytest.fixture
def steplog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder of its own; fails unless it exits as expected."""
    monkeypatch.chdir(tmp_path)
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES", "STEPLOG_ANCHOR_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, exits: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    return run


@pytest.fixture
def job(tmp_path: Path, steplog: Run) -> str:
    """A job in the store of that folder."""
    wf = Workflow("cooking")

    @wf.sub_step
    def chop() -> int:
        return 1

    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        return run_blocking(wf, None, store=store).job_id


def tamper(statement: str) -> None:
    with closing(sqlite3.connect("steplog.db")) as raw, raw:
        raw.execute("DROP TRIGGER IF EXISTS events_refuse_update")
        raw.execute("DROP TRIGGER IF EXISTS events_refuse_delete")
        raw.execute(statement)


def test_verify_names_job_and_version_and_exits_7(steplog: Run, job: str) -> None:
    assert steplog("verify").stdout == ""
    assert json.loads(steplog("verify", job, "-o", "json").stdout) == []
    tamper("UPDATE events SET data = '{}' WHERE version = 3")
    damaged = steplog("verify", exits=7)
    assert damaged.stdout.startswith(f"job {job}, version 3: hash")
    assert "1 thing is not what" in damaged.stderr
    (found,) = json.loads(steplog("verify", job, "-o", "json", exits=7).stdout)
    assert (found["job_id"], found["version"]) == (job, 3)


def test_verify_of_a_job_that_is_nowhere_exits_3(steplog: Run, job: str) -> None:
    steplog("verify", job.replace("0", "1"), exits=3)
    steplog("verify", job, "--all", exits=2)


def test_anchor_finds_a_job_that_was_removed(steplog: Run, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPLOG_ANCHOR_KEY", "secret")
    steplog("anchor", "--all", "-o", "anchor.jsonl")
    steplog("verify", "--anchor", "anchor.jsonl")
    tamper("DELETE FROM events")
    tamper("DELETE FROM jobs")
    steplog("verify")
    for of in ((), (job,)):
        assert f"job {job}, version" in steplog("verify", *of, "--anchor", "anchor.jsonl", exits=7).stdout
    monkeypatch.setenv("STEPLOG_ANCHOR_KEY", "another")
    assert "signature" in steplog("verify", "--anchor", "anchor.jsonl", exits=7).stderr


def test_doctor_repairs_heads_and_nothing_else(steplog: Run, job: str) -> None:
    steplog("doctor")
    tamper("UPDATE jobs SET status = 'failed'")
    steplog("doctor", exits=7)
    (repaired,) = json.loads(steplog("doctor", "--repair", "-o", "json").stdout)
    assert repaired["repaired"]
    steplog("verify")
    tamper("UPDATE events SET data = '{}' WHERE version = 3")
    steplog("doctor", "--repair", exits=7)


def test_doctor_says_what_a_store_lacks(steplog: Run, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "steplog.db")) as raw:
        raw.execute("CREATE TABLE of_others (name TEXT)")
    assert "db migrate" in steplog("doctor", exits=6).stderr


def test_export_goes_to_stdout_or_a_file_and_is_imported(steplog: Run, job: str) -> None:
    shown = steplog("export", job).stdout
    steplog("export", "--all", "-o", "events.jsonl")
    assert Path("events.jsonl").read_text() == shown
    other = ("--db", "sqlite:///other.db")
    assert "imported" in steplog("import", "events.jsonl", *other).stdout
    assert json.loads(steplog("import", "events.jsonl", *other, "-o", "jsonl").stdout)["outcome"] == "there already"
    steplog("verify", *other)
    steplog("export", exits=2)
    Path("events.jsonl").write_text("{}")
    steplog("import", "events.jsonl", exits=2)


def test_file_of_an_export_that_failed_is_as_it_was(steplog: Run, job: str) -> None:
    Path("events.jsonl").write_text("before")
    tamper("UPDATE events SET data = '{}' WHERE version = 3")
    steplog("export", job, "-o", "events.jsonl", exits=7)
    assert Path("events.jsonl").read_text() == "before"
    assert [path.name for path in Path.cwd().glob("*.part")] == []


def test_backup_is_a_store_of_its_own_and_no_file_is_overwritten(steplog: Run, job: str) -> None:
    steplog("db", "backup", "backup.db")
    assert json.loads(steplog("ls", "--db", "sqlite:///backup.db", "-o", "json").stdout)["items"][0]["job_id"] == job
    steplog("verify", "--db", "sqlite:///backup.db")
    steplog("db", "backup", "backup.db", exits=2)
    steplog("db", "backup", "nowhere/backup.db", exits=6)


def test_backup_of_postgres_says_how_without_asking_the_server(steplog: Run) -> None:
    refused = steplog("db", "backup", "backup.db", "--db", "postgresql://localhost/kitchen", exits=2)
    assert "pg_dump" in refused.stderr


def test_verify_holds_what_projections_keep_against_the_log(steplog: Run, job: str) -> None:
    steplog("db", "project", "--once")
    steplog("verify")
    tamper("UPDATE projected SET document = '{}' WHERE projection = 'report'")
    found = steplog("verify", job, exits=7)
    assert found.stdout.startswith(f"job {job}, version ")
    assert "the job's document in report is not what the log comes to" in found.stdout
    steplog("doctor", exits=7)
    steplog("db", "rebuild", "report")
    steplog("verify")
