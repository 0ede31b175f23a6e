"""verify, anchors, doctor, export and import on real stores: what was done to the rows is found, and nothing else."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from shutil import copy
from typing import Any

import orjson
import pytest

from steplog import Fatal, Workflow, result
from steplog.engine import operators
from steplog.engine.anchors import Anchor, anchor, differences, read_anchors, write_anchors
from steplog.engine.errors import AnchorRefused, ImportConflict, ImportRefused
from steplog.engine.fork import fork
from steplog.engine.history import load, to_store
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.engine.moving import export, import_jobs
from steplog.engine.verification import repair, verify_all, verify_job
from steplog.eventstore.errors import DamagedLog, JobNotFound, KeyConflict, StoreError
from steplog.eventstore.inspection import all_job_ids
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.projections.verification import Finding

FLIPS = 100


def kitchen(*, burns: bool = False) -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("cooking")

    @wf.sub_step
    def chop() -> str:
        return "soup"

    @wf.sub_step
    def serve(name: str = result(chop)) -> str:
        if burns:
            raise Fatal("the plate fell")
        return name

    return wf


def cooked(store: Store, *, key: str | None = None, burns: bool = False) -> str:
    return run_blocking(kitchen(burns=burns), None, key=key, store=store).job_id


@pytest.fixture
def other(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "other.db")) as store:
        yield store


@pytest.fixture
def tamper(sqlite_store: SQLiteStore, tmp_path: Path) -> Callable[..., None]:
    """Runs a statement on the file past every protection."""

    def run(statement: str, *parameters: Any) -> None:
        with closing(sqlite3.connect(tmp_path / "steplog.db")) as raw, raw:
            for trigger in ("update", "delete"):
                raw.execute(f"DROP TRIGGER IF EXISTS events_refuse_{trigger}")
            raw.execute(statement, parameters)

    return run


def found(store: Store) -> list[tuple[str | None, int]]:
    return [(each.job_id, each.version) for each in verify_all(store)]


# --- verify ----------------------------------------------------------------------------------------------------------


def test_whole_store_has_no_findings(store: Store) -> None:
    first = cooked(store, key="a")
    stopped = cooked(store, burns=True)
    forked = fork(store, stopped, by="anna").state["job_id"]
    store.save_state(to_store(load(store, first)))
    assert list(verify_all(store)) == []
    for job_id in (first, stopped, forked):
        assert list(verify_job(store, job_id)) == []


def test_job_of_which_nothing_is_stored_is_not_found(store: Store) -> None:
    with pytest.raises(JobNotFound):
        list(verify_job(store, "01a20953-b51b-7c13-a017-4a772713b617"))


@pytest.mark.parametrize(
    ("statement", "version"),
    [
        ("UPDATE events SET data = replace(data, 'main', 'mean') WHERE job_id = ? AND version = 6", 6),
        ("UPDATE events SET recorded_at = 'x' WHERE job_id = ? AND version = 3", 3),
        ("DELETE FROM events WHERE job_id = ? AND version = 4", 4),
        ("DELETE FROM events WHERE job_id = ? AND version = 9", 9),
        ("UPDATE jobs SET status = 'failed' WHERE job_id = ?", 9),
        ("UPDATE jobs SET tags = '{' WHERE job_id = ?", 0),
        ("UPDATE jobs SET version = 8 WHERE job_id = ?", 8),
        ("UPDATE jobs SET version = 10 WHERE job_id = ?", 10),
        ("DELETE FROM jobs WHERE job_id = ?", 1),
        ("UPDATE snapshots SET state = replace(state, 'soup', 'stew') WHERE job_id = ?", 9),
        ("UPDATE snapshots SET state = '{' WHERE job_id = ?", 9),
        ("UPDATE snapshots SET version = 12 WHERE job_id = ?", 12),
        ("DELETE FROM job_keys WHERE job_id = ?", 0),
        ("UPDATE job_keys SET job_id = 'nobody' WHERE job_id = ?", 0),
        ("UPDATE job_keys SET key = 'b' WHERE job_id = ?", 0),
        ("UPDATE job_keys SET input_hash = '' WHERE job_id = ?", 1),
        ("UPDATE snapshots SET job_id = 'nobody' WHERE job_id = ?", 0),
    ],
)
def test_what_was_done_to_one_job_is_found_and_the_others_are_verified(
    sqlite_store: SQLiteStore, tamper: Callable[..., None], statement: str, version: int
) -> None:
    cooked(sqlite_store)
    job_id = cooked(sqlite_store, key="a")
    cooked(sqlite_store)
    sqlite_store.save_state(to_store(load(sqlite_store, job_id)))
    assert found(sqlite_store) == []
    tamper(statement, job_id)
    findings = found(sqlite_store)
    assert {(job_id, version), ("nobody", version)} & set(findings)
    assert {each for each, _ in findings} <= {job_id, "nobody"}


def test_flipped_bits_are_found_where_anything_reads_otherwise(tmp_path: Path) -> None:
    """Mutant: verify reads the log by its index alone, and the table's own rows differ."""
    whole = tmp_path / "whole.db"
    with closing(SQLiteStore(whole)) as store:
        jobs = {cooked(store, key=str(number)) for number in range(20)}
        for job_id in jobs:
            store.save_state(to_store(load(store, job_id)))
    expected, source, named = contents(whole), random.Random(7), 0
    for _ in range(FLIPS):
        damaged = tmp_path / "damaged.db"
        copy(whole, damaged)
        content = bytearray(damaged.read_bytes())
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        damaged.write_bytes(content)
        findings = findings_or_refusal(damaged)
        named += any(each.job_id in jobs for each in findings)
        assert findings or contents(damaged) == expected
    assert named > FLIPS // 4


def findings_or_refusal(path: Path) -> list[Finding]:
    with closing(SQLiteStore(path, create=False)) as store:
        try:
            return list(verify_all(store))
        except JobNotFound:
            raise  # what became of one job must not end the verification of the others
        except StoreError as error:
            return [Finding(None, 0, str(error))]


def contents(path: Path) -> list[Any]:
    """Every row that the log's tables hold, read without their indexes."""
    rows: list[Any] = []
    with closing(sqlite3.connect(path)) as raw:
        raw.text_factory = bytes
        for table in ("events", "jobs", "snapshots", "job_keys"):
            with suppress(sqlite3.Error, UnicodeDecodeError):
                rows.append(raw.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall())  # noqa: S608
    return rows


# --- heads put right -------------------------------------------------------------------------------------------------


def test_repaired_head_is_what_the_log_folds_to_and_the_log_is_untouched(
    sqlite_store: SQLiteStore, tamper: Callable[..., None]
) -> None:
    job_id = cooked(sqlite_store, key="a")
    head, log = sqlite_store.head(job_id), list(sqlite_store.read(job_id))
    tamper("UPDATE jobs SET status = 'failed', done = 0, workflow = 'w', key = NULL WHERE job_id = ?", job_id)
    assert all(each.repairable for each in verify_job(sqlite_store, job_id))
    repair(sqlite_store, job_id)
    assert sqlite_store.head(job_id) == head
    assert list(sqlite_store.read(job_id)) == log
    assert found(sqlite_store) == []


def test_head_of_a_damaged_log_is_not_put_right(sqlite_store: SQLiteStore, tamper: Callable[..., None]) -> None:
    job_id = cooked(sqlite_store)
    tamper("UPDATE jobs SET status = 'failed' WHERE job_id = ?", job_id)
    tamper("UPDATE events SET data = '{}' WHERE job_id = ? AND version = 2", job_id)
    with pytest.raises(DamagedLog):
        repair(sqlite_store, job_id)
    assert sqlite_store.head(job_id).columns.status == "failed"


# --- anchors ---------------------------------------------------------------------------------------------------------


def anchored(store: Store, key: str | None = None) -> list[bytes]:
    return list(write_anchors((anchor(store, job_id) for job_id in all_job_ids(store.inspection)), key))


def against(store: Store, lines: list[bytes], key: str | None = None) -> list[tuple[str | None, int]]:
    return [(each.job_id, each.version) for each in differences(store, read_anchors(lines, key))]


def test_store_that_went_on_fits_its_anchor(store: Store) -> None:
    job_id = cooked(store, burns=True)
    lines = anchored(store, "secret")
    resume_after_retry(store, job_id)
    assert against(store, lines, "secret") == []


def resume_after_retry(store: Store, job_id: str) -> None:
    operators.retry(store, job_id, by="anna")
    resume_blocking(kitchen(), job_id, store, by="anna")


def test_cut_rewritten_and_removed_jobs_are_found_only_with_an_anchor(
    sqlite_store: SQLiteStore, other: SQLiteStore, tamper: Callable[..., None]
) -> None:
    """Each is done so well that the store alone looks whole."""
    cut, rewritten, removed = (cooked(sqlite_store, burns=True) for _ in range(3))
    for job_id in (cut, rewritten):
        list(import_jobs(other, export(sqlite_store, job_id)))
    resume_after_retry(sqlite_store, cut)
    resume_after_retry(sqlite_store, rewritten)
    lines = anchored(sqlite_store)
    ends = {job_id: sqlite_store.head(job_id).version for job_id in (cut, rewritten, removed)}
    for job_id in ends:
        tamper("DELETE FROM events WHERE job_id = ?", job_id)
        tamper("DELETE FROM jobs WHERE job_id = ?", job_id)
    list(import_jobs(sqlite_store, export(other, cut)))
    resume_after_retry(other, rewritten)
    list(import_jobs(sqlite_store, export(other, rewritten)))
    assert found(sqlite_store) == []
    assert set(against(sqlite_store, lines)) == set(ends.items())


def test_anchor_of_a_damaged_job_is_not_made(sqlite_store: SQLiteStore, tamper: Callable[..., None]) -> None:
    job_id = cooked(sqlite_store)
    tamper("UPDATE events SET data = '{}' WHERE job_id = ? AND version = 2", job_id)
    with pytest.raises(DamagedLog, match="version 2"):
        anchor(sqlite_store, job_id)


ANCHORS = [Anchor("a", 3, "aa"), Anchor("b", 1, "bb")]


@pytest.mark.parametrize("key", [None, "secret"])
def test_anchor_file_reads_as_it_was_written(key: str | None) -> None:
    assert list(read_anchors(write_anchors(ANCHORS, key), key)) == ANCHORS
    assert list(read_anchors(write_anchors([], key), key)) == []


@pytest.mark.parametrize("key", [None, "secret"])
@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [],
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0].replace(b"3", b"2"), *lines[1:]],
        lambda lines: [*lines[:-1], lines[-1].replace(b"2", b"3", 1)],
        lambda lines: [b"{}\n", *lines[1:]],
        lambda lines: [b"nothing\n", *lines],
    ],
)
def test_anchor_file_that_was_changed_is_refused(key: str | None, change: Callable[[list[bytes]], list[bytes]]) -> None:
    with pytest.raises(AnchorRefused):
        list(read_anchors(change(list(write_anchors(ANCHORS, key))), key))


def test_anchor_file_must_be_signed_with_the_key_if_there_is_one() -> None:
    for signed_with in (None, "another"):
        with pytest.raises(AnchorRefused):
            list(read_anchors(write_anchors(ANCHORS, signed_with), "secret"))
    assert list(read_anchors(write_anchors(ANCHORS, "secret"), None)) == ANCHORS


# --- export and import -----------------------------------------------------------------------------------------------


def test_jobs_moved_there_and_back_are_the_same_and_go_on(
    store: Store, other: SQLiteStore, postgres_store: PostgresStore, sqlite_store: SQLiteStore
) -> None:
    target = sqlite_store if isinstance(store, PostgresStore) else postgres_store
    whole, stopped = cooked(store, key="a"), cooked(store, burns=True)
    forked = fork(store, stopped, by="anna").state["job_id"]
    lines = [line for job_id in all_job_ids(store.inspection) for line in export(store, job_id)]
    assert {done.outcome for done in import_jobs(target, lines)} == {"imported"}
    assert {done.outcome for done in import_jobs(target, lines)} == {"there already"}
    assert list(verify_all(target)) == []
    for job_id in (whole, stopped, forked):
        here, there = store.head(job_id), target.head(job_id)
        assert (there.position, there.columns, there.epoch) == (here.position, here.columns, here.epoch)
        assert there.worker_id is None
        assert list(target.read(job_id)) == list(store.read(job_id))
        assert list(export(target, job_id)) == list(export(store, job_id))
    assert cooked(target, key="a") == whole
    resume_after_retry(target, stopped)
    assert target.head(stopped).epoch == store.head(stopped).epoch + 1
    assert {done.outcome for done in import_jobs(store, export(target, stopped))} == {"continued"}
    assert store.head(stopped).columns.status == "completed"
    assert store.head(stopped).epoch == target.head(stopped).epoch
    assert list(verify_all(store)) == []


def test_job_that_goes_on_in_both_stores_is_a_conflict_at_its_version(store: Store, other: SQLiteStore) -> None:
    job_id = cooked(store, burns=True)
    list(import_jobs(other, export(store, job_id)))
    shared = store.head(job_id).version
    for each in (store, other):
        resume_after_retry(each, job_id)
    log = list(other.read(job_id))
    with pytest.raises(ImportConflict) as refused:
        list(import_jobs(other, export(store, job_id)))
    assert (refused.value.job_id, refused.value.version) == (job_id, shared + 1)
    assert list(other.read(job_id)) == log


def test_key_taken_by_another_job_is_a_conflict(store: Store, other: SQLiteStore) -> None:
    job_id = cooked(store, key="a")
    cooked(other, key="a")
    with pytest.raises(ImportConflict, match="its key 'a'"):
        list(import_jobs(other, export(store, job_id)))
    lines = list(export(store, job_id))
    lines[0] = orjson.dumps({**orjson.loads(lines[0]), "input_hash": "of another input"})
    with pytest.raises(KeyConflict):
        list(import_jobs(other, lines))
    assert len(list(all_job_ids(other.inspection))) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines[:4], *lines[5:]],
        lambda lines: [*lines[:4], lines[4].replace(b'"main"', b'"mein"'), *lines[5:]],
        lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]],
        lambda lines: [lines[0].replace(b'"hash":"', b'"hash":"0'), *lines[1:]],
    ],
)
def test_export_that_was_changed_stores_nothing_of_the_job(
    store: Store, other: SQLiteStore, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    whole = list(export(store, cooked(store)))
    damaged = list(export(store, cooked(store)))
    with pytest.raises(DamagedLog):
        list(import_jobs(other, [*whole, *change(damaged)]))
    assert len(list(all_job_ids(other.inspection))) == 1


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"job_id":1,"version":"1","hash":"","input_hash":""}'])
def test_what_is_no_export_is_refused_by_line(other: SQLiteStore, line: bytes) -> None:
    with pytest.raises(ImportRefused, match="line 1"):
        list(import_jobs(other, [line]))


def test_damaged_job_is_not_exported(sqlite_store: SQLiteStore, tamper: Callable[..., None]) -> None:
    job_id = cooked(sqlite_store)
    tamper("UPDATE events SET data = '{}' WHERE job_id = ? AND version = 5", job_id)
    with pytest.raises(DamagedLog, match="version 5"):
        list(export(sqlite_store, job_id))
