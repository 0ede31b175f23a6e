"""Pruning: exported first, removed then; ids and keys stay burnt, and nothing else takes an event away."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from log_builder import LogBuilder
from logged_jobs import LoggedJob
from psycopg import sql
from psycopg.conninfo import make_conninfo
from shown_jobs import HALF_WAY, claimed, created

from steplog import Workflow
from steplog.cli import main
from steplog.engine import pruning
from steplog.engine.jobs import run_blocking
from steplog.engine.moving import export, import_jobs
from steplog.engine.verification import verify_all, verify_job
from steplog.eventstore import events as ev
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, JobPruned, KeyConflict, StoreError
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery, Store
from steplog.projections.runner import ProjectionRunner, own_projections, read_statistics, rebuild
from steplog.testing.memory import MemoryStore

ENDED = [fact for _, fact in HALF_WAY] + [ev.JobReleased(reason="handed back"), ev.JobCancelled(by="anna")]
LATER = "2030-01-01T00:00:00.000000Z"


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def any_store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore()
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


def ended(store: Store, key: str | None = None) -> LoggedJob:
    job = LoggedJob(store)
    job.add([created(key=key)[1], *ENDED[1:]])
    return job


def pruned(store: Store, *jobs: LoggedJob) -> list[bytes]:
    lines = [line for job in jobs for line in export(store, job.job_id)]
    assert pruning.prune(store, lines) == len(jobs)
    return lines


def test_pruned_job_keeps_its_head_its_id_and_its_key(any_store: Store) -> None:
    store, job = any_store, ended(any_store, key="k1")
    head = store.head(job.job_id)
    pruned(store, job)
    assert store.head(job.job_id) == head
    assert list(store.inspection.rows(job.job_id)) == []
    assert store.pruned(job.job_id) == Position(head.version, head.hash)
    with pytest.raises(JobPruned):
        list(store.read(job.job_id))
    build = LogBuilder(job.clock)
    assert store.create(build.job(key="k1", input_hash="")) == job.job_id
    with pytest.raises(KeyConflict):
        store.create(build.job(key="k1", input_hash="another input"))


def test_export_of_a_pruned_job_is_whole_elsewhere(any_store: Store) -> None:
    job = ended(any_store)
    lines = pruned(any_store, job)
    other = MemoryStore()
    (done,) = import_jobs(other, lines)
    assert (done.job_id, done.outcome) == (job.job_id, "imported")
    assert list(verify_job(other, job.job_id)) == []


def test_job_that_is_not_over_or_went_on_is_left_as_it_is(any_store: Store) -> None:
    running, over = LoggedJob(any_store), ended(any_store)
    running.add([created()[1], claimed()[1]])
    lines = [line for job in (running, over) for line in export(any_store, job.job_id)]
    over.add([ev.JobReopened(by="anna")])
    assert pruning.prune(any_store, lines) == 0
    assert len(list(any_store.read(over.job_id))) == over.position.version
    still = ended(any_store)
    assert not any_store.prune(still.job_id, Position(1, "0" * 64))
    assert len(list(any_store.read(still.job_id))) == still.position.version


def test_nothing_is_removed_for_an_export_that_is_damaged(any_store: Store) -> None:
    job = ended(any_store)
    lines = list(export(any_store, job.job_id))
    with pytest.raises(DamagedLog):
        pruning.prune(any_store, lines[:-1])
    assert len(list(any_store.read(job.job_id))) == job.position.version


def test_old_jobs_are_those_that_ended_before(any_store: Store) -> None:
    job, other = ended(any_store), ended(any_store)
    LoggedJob(any_store).add([created()[1]])
    assert {head.job_id for head in pruning.old_jobs(any_store, LATER)} == {job.job_id, other.job_id}
    assert list(pruning.old_jobs(any_store, "2020-01-01T00:00:00.000000Z")) == []
    pruned(any_store, job)
    assert [head.job_id for head in pruning.old_jobs(any_store, LATER)] == [other.job_id]


def test_verify_finds_nothing_wrong_with_a_pruned_job(any_store: Store) -> None:
    job = ended(any_store, key="k1")
    pruned(any_store, job)
    assert list(verify_job(any_store, job.job_id)) == []
    assert list(verify_all(any_store)) == []


def test_what_projections_kept_of_a_pruned_job_outlives_a_rebuild(store: Store) -> None:
    job = ended(store)
    ended(store)
    runner = ProjectionRunner(store)
    runner.catch_up()
    counted, rows = read_statistics(store), store.projected.step_rows()
    pruned(store, job)
    for projection in own_projections():
        list(rebuild(store, projection))
    runner.catch_up()
    assert read_statistics(store) == counted
    assert store.projected.step_rows() == rows
    assert store.projected.quarantined() == []


def test_no_other_event_may_go(sqlite_store: SQLiteStore, tmp_path: Path) -> None:
    job, other = ended(sqlite_store), ended(sqlite_store)
    pruned(sqlite_store, job)
    with closing(sqlite3.connect(tmp_path / "steplog.db")) as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute("DELETE FROM events WHERE job_id = ?", (other.job_id,))


def test_only_an_administrator_prunes(postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    job, other = ended(postgres_store), ended(postgres_store)
    app = PostgresStore(_as(postgres_dsn, "steplog_app"), schema=postgres_schema)
    with closing(app), pytest.raises(StoreError, match="permission denied"):
        app.prune(job.job_id, job.position)
    with closing(PostgresStore(_as(postgres_dsn, "steplog_admin"), schema=postgres_schema)) as admin:
        assert admin.prune(job.job_id, job.position)
    statement = sql.SQL("delete from {} where job_id = %s").format(sql.Identifier(postgres_schema, "events"))
    with psycopg.connect(_as(postgres_dsn, "steplog_admin"), autocommit=True) as raw:
        raw.execute("set steplog.pruning = 'on'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            raw.execute(statement, [other.job_id])


def _as(dsn: str, role: str) -> str:
    return make_conninfo(dsn, options=f"-c role={role}")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_export_is_on_the_disk_under_its_name_before_events_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf, done = Workflow("cooking"), []
    wf.sub_step(name="chop")(lambda: None)
    real_prune, real_fsync = SQLiteStore.prune, os.fsync

    def prune(store: SQLiteStore, job_id: str, at: Position) -> bool:
        done.append("removed")
        return real_prune(store, job_id, at)

    def fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_fsync(descriptor)

    monkeypatch.chdir(tmp_path)
    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        run_blocking(wf, None, store=store)
    monkeypatch.setattr(SQLiteStore, "prune", prune)
    monkeypatch.setattr(os, "fsync", fsync)

    CliRunner().invoke(main, ["db", "prune", "--older-than", "2999-01-01", "--export", "old.jsonl"])

    assert done == ["old.jsonl.part", tmp_path.name, "removed"]


def test_prune_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wf = Workflow("cooking")

    @wf.sub_step
    def chop() -> int:
        return 1

    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        job_id = run_blocking(wf, None, store=store).job_id
        later = "2999-01-01T00:00:00Z"
        run: Callable[..., Result] = lambda *words: CliRunner().invoke(main, words, catch_exceptions=False)  # noqa: E731
        assert job_id in run("db", "prune", "--older-than", later, "--dry-run").stdout
        assert run("db", "prune", "--older-than", later).exit_code == 2
        done = run("db", "prune", "--older-than", later, "--export", "old.jsonl")
        assert (done.exit_code, done.stdout) == (0, f"{job_id}  pruned\n")
        assert (tmp_path / "old.jsonl").read_bytes().count(b"\n") == store.head(job_id).version + 1
        assert len(store.heads(HeadQuery())) == 1
    shown = run("show", job_id)
    assert shown.exit_code == 3
    assert "pruned" in shown.stderr
    assert run("export", "--all").exit_code == 0
    assert run("verify").exit_code == 0
