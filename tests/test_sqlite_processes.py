"""Several processes on one SQLite file: who owns what when one of them dies, stops or forks."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from log_builder import LogBuilder
from process_program import Process

from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import JobOwned
from steplog.eventstore.process_identity import own_identity
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.sqlite_tables import WorkerRow
from steplog.eventstore.sqlite_workers import lives
from steplog.eventstore.store import Claim

PROGRAM = Path(__file__).with_name("sqlite_program.py")
LOCK_PROGRAM = Path(__file__).with_name("lock_program.py")
LEASE_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def other(path: Path) -> Iterator[Process]:
    with Process(PROGRAM, path) as process:
        yield process


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as store:
        yield store


def claim(store: SQLiteStore, job_id: str) -> Claim:
    build = LogBuilder(SystemClock())
    worker = build.worker()
    store.register_worker(worker, LEASE_S)
    return store.claim(job_id, worker.worker_id, store.head(job_id).position, build.claiming())


def test_job_of_a_killed_process_is_taken_over_at_once(store: SQLiteStore, other: Process) -> None:
    job_id = other.ask("create")
    former = other.ask("claim", job_id)
    with pytest.raises(JobOwned) as refused:
        claim(store, job_id)
    assert refused.value.worker_id == former
    other.kill()
    assert claim(store, job_id).epoch == 2
    states = {worker.identity.worker_id: worker.state for worker in store.workers()}
    assert states[former] == "dead"
    assert [event.type for event in store.read(job_id)] == ["JobCreated", "JobClaimed", "JobClaimed"]


def test_stopped_process_keeps_its_jobs(store: SQLiteStore, other: Process) -> None:
    job_id = other.ask("create")
    other.ask("claim", job_id)
    other.stop()
    with pytest.raises(JobOwned):
        claim(store, job_id)
    other.go_on()
    assert other.ask("append_locked", job_id, 1) == 3


def test_child_that_outlives_a_killed_worker_does_not_keep_its_jobs(store: SQLiteStore, other: Process) -> None:
    job_id = other.ask("create")
    other.ask("claim", job_id)
    child = other.ask("leave_child")
    try:
        with pytest.raises(JobOwned):
            claim(store, job_id)
        other.kill()
        assert claim(store, job_id).epoch == 2
    finally:
        os.kill(child, signal.SIGKILL)


def test_worker_of_the_same_process_is_not_robbed_through_another_opening(path: Path, store: SQLiteStore) -> None:
    with closing(SQLiteStore(path)) as second:
        job_id = store.create(LogBuilder(SystemClock()).job())
        claim(store, job_id)
        with pytest.raises(JobOwned):
            claim(second, job_id)
        store.close()
        assert claim(second, job_id).epoch == 2


def test_worker_keeps_its_lock_when_another_opening_of_its_process_closes(
    path: Path, store: SQLiteStore, other: Process
) -> None:
    job_id = other.ask("create")
    claim(store, job_id)
    with closing(SQLiteStore(path)) as second:
        claim(second, second.create(LogBuilder(SystemClock()).job()))
    assert other.ask("claim", job_id) == "JobOwned"


def test_owner_is_not_robbed_when_the_file_of_locks_is_copied(path: Path, store: SQLiteStore, other: Process) -> None:
    job_id = other.ask("create")
    claim(store, job_id)
    path.with_name("log.db-workers").read_bytes()
    assert other.ask("claim", job_id) == "JobOwned"


def test_owner_whose_process_is_gone_is_dead_although_something_forked_from_it_has_its_lock() -> None:
    """Something that was not forked by Python, which lets go of the lock in the child."""
    holder: Any = SimpleNamespace(is_locked=lambda byte: True)
    identity = own_identity("w")
    with subprocess.Popen(["true"]) as ended:
        pass
    assert lives(holder, WorkerRow(1, "alive", identity))
    assert not lives(holder, WorkerRow(1, "alive", replace(identity, pid=ended.pid)))


def test_retired_worker_leaves_its_byte_free(path: Path, store: SQLiteStore) -> None:
    owner = claim(store, store.create(LogBuilder(SystemClock()).job()))
    with Process(LOCK_PROGRAM, path.with_name("log.db-workers")) as other:
        assert other.ask("is_locked", 1)
        store.retire_worker(owner.worker_id)
        assert not other.ask("is_locked", 1)


def test_path_through_a_link_leads_to_the_same_locks(path: Path, store: SQLiteStore, other: Process) -> None:
    job_id = other.ask("create")
    other.ask("claim", job_id)
    link = path.with_name("link.db")
    link.symlink_to(path)
    with closing(SQLiteStore(link)) as linked, pytest.raises(JobOwned):
        claim(linked, job_id)


def test_forked_child_is_refused_the_file_that_its_parent_has_open(other: Process) -> None:
    job_id = other.ask("create")
    assert other.ask("use_in_child") == ["0 StoreUnavailable", "1 StoreUnavailable"]
    assert other.ask("append_locked", job_id, 1) == 2


def test_forked_child_may_open_the_file_that_its_parent_has_closed(other: Process) -> None:
    other.ask("create")
    other.ask("close")
    assert other.ask("use_in_child") == ["0 StoreUnavailable", "1 fine"]


def test_processes_append_to_one_job_without_loss(path: Path, store: SQLiteStore) -> None:
    job_id = store.create(LogBuilder(SystemClock()).job())
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(PROGRAM, path)) for _ in range(3)]
        for process in processes:
            process.send("append_locked", job_id, 30)
        assert max(process.answer() for process in processes) == 91
    assert [event.version for event in store.read(job_id)] == list(range(1, 92))


def test_processes_may_all_be_the_first_to_open_a_file(path: Path) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(PROGRAM, path)) for _ in range(4)]
        for process in processes:
            process.send("create")
        jobs = {process.answer() for process in processes}
    with closing(sqlite3.connect(path)) as raw:
        assert {job_id for (job_id,) in raw.execute("SELECT job_id FROM jobs")} == jobs
    assert len(jobs) == 4
