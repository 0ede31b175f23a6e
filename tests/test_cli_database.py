"""db status, db sql, db project, db rebuild and stats as commands."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from logged_jobs import LoggedJob
from shown_jobs import HALF_WAY

from steplog import Workflow
from steplog.cli import main
from steplog.engine.jobs import run_blocking
from steplog.eventstore.migrations import known_migrations, script
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.projections.report_table import ReportTable
from steplog.projections.runner import ProjectionRunner
from steplog.projections.statistics import Statistics
from steplog.terminal import progress

Run = Callable[..., Result]


@pytest.fixture
def steplog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder of its own; fails unless it exits as expected."""
    monkeypatch.chdir(tmp_path)
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES", "STEPLOG_REPORT_TABLE"):
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


def test_status_says_how_the_projections_stand(steplog: Run, job: str) -> None:
    assert "not built yet" in steplog("db", "status").stdout
    steplog("db", "project", "--once")
    assert steplog("db", "status").stdout.count("current") == 2
    shown = json.loads(steplog("db", "status", "-o", "json").stdout)
    assert [(each["name"], each["lag_s"], each["quarantined"]) for each in shown["projections"]] == [
        ("statistics", 0.0, []),
        ("report", 0.0, []),
    ]


def test_what_is_taken_in_is_told_while_it_takes_long(steplog: Run, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TOLD_EVERY_S", 0.0)
    assert "projections  1/2 jobs and rows" in steplog("db", "project", "--once").stderr
    assert steplog("db", "project", "--once").stderr == ""


def test_status_names_the_job_that_was_put_aside(steplog: Run, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: Statistics, job: object) -> object:
        raise ValueError("not\nthis one")

    with monkeypatch.context() as broken:
        broken.setattr(Statistics, "document", breaks)
        steplog("db", "project", "--once")
    assert f"1 jobs put aside, the first {job}" in steplog("db", "status").stdout
    steplog("db", "rebuild", "statistics")
    assert "put aside" not in steplog("db", "status").stdout


def test_stats_shows_what_was_counted(steplog: Run, job: str) -> None:
    assert "nothing is counted yet" in steplog("stats").stderr
    steplog("db", "project", "--once")
    assert "main/chop" in steplog("stats").stdout
    (counted,) = json.loads(steplog("stats", "-o", "json").stdout)
    assert (counted["workflow"], counted["attempts"], counted["failure_rate"]) == ("cooking", 1, 0.0)
    assert json.loads(steplog("stats", "--workflow", "baking", "-o", "json").stdout) == []


def test_rebuild_mends_the_table(steplog: Run, job: str, tmp_path: Path) -> None:
    steplog("db", "project", "--once")
    with closing(sqlite3.connect(tmp_path / "steplog.db")) as raw, raw:
        (before,) = raw.execute("SELECT sub_step_progress FROM registration_job_steps").fetchall()
        raw.execute("DELETE FROM registration_job_steps")
    assert steplog("db", "rebuild", "report").stdout == "report: rebuilt from 1 jobs\n"
    with closing(sqlite3.connect(tmp_path / "steplog.db")) as raw:
        assert raw.execute("SELECT sub_step_progress FROM registration_job_steps").fetchall() == [before]


def test_project_keeps_on_until_it_is_told_to_stop(steplog: Run, job: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "steplog", "db", "project"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "keeping statistics, report" in process.stderr.readline()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0


def test_sql_is_what_migrate_runs(steplog: Run, tmp_path: Path) -> None:
    printed = steplog("db", "sql").stdout
    with closing(sqlite3.connect(tmp_path / "by_hand.db")) as raw:
        raw.executescript(printed)
    with closing(SQLiteStore(tmp_path / "by_hand.db", create=False)) as store:
        assert store.migrate(dry_run=True) == []
    steplog("db", "migrate")
    assert steplog("db", "sql").stdout == ""
    assert steplog("db", "sql", "--all").stdout == printed


def test_sql_can_be_run_by_hand_on_postgres(postgres_dsn: str, new_schema: str) -> None:
    text = script("postgres", known_migrations("postgres"))
    ours = text.replace("schema if not exists steplog", f"schema {new_schema}")
    ours = ours.replace("to steplog,", f"to {new_schema},")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(ours.encode())
    with closing(PostgresStore(postgres_dsn, schema=new_schema)) as store:
        assert store.migrate(dry_run=True) == []


def test_table_of_a_pages_own_is_kept_in_its_place(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"{postgres_schema}.a page's own"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            f'create table {postgres_schema}."a page\'s own" (job_id uuid, step_number int, status text,'
            " sub_step_progress jsonb, error_message text, updated_at timestamptz)".encode()
        )
    job = LoggedJob(postgres_store)
    job.add([fact for _, fact in HALF_WAY])
    runner = ProjectionRunner(postgres_store, [ReportTable(table)])
    runner.catch_up()
    (row,) = postgres_store.projected.step_rows(table)
    assert (row.job_id, row.step_number, row.status) == (job.job_id, 6, "in_progress")
    assert postgres_store.projected.step_rows() == []
