"""A SQLite file on a disk that is read-only: its history is read, and a write says why it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from log_builder import LogBuilder, changed

from steplog.cli import main
from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import HeadQuery
from steplog.testing.clock import VirtualClock

BESIDE = {"closed": [], "killed": ["-wal", "-shm"], "copied without its index": ["-wal"]}
"""What is found beside the file, by how it was left."""


@dataclass
class Disk:
    """A folder that can be made read-only, for root as for anybody."""

    folder: Path

    def freeze(self) -> None:
        self._set("ro", 0o555)

    def thaw(self) -> None:
        self._set("rw", 0o755)

    def _set(self, option: str, mode: int) -> None:
        if os.geteuid() == 0:
            subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)
        else:
            self.folder.chmod(mode)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    if os.geteuid() != 0:
        yield disk
        disk.thaw()
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk.folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"root cannot mount a disk here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


def new_job(store: SQLiteStore) -> str:
    build = LogBuilder(VirtualClock(store.now()))
    job_id = store.create(build.job())
    store.append_locked(job_id, store.head(job_id).position, build.proposing(changed("kept")))
    return job_id


@pytest.fixture(params=BESIDE)
def left(request: pytest.FixtureRequest, tmp_path: Path, disk: Disk) -> tuple[Path, str]:
    """A file on the read-only disk, and the job that is in it."""
    path, there = tmp_path / "log.db", disk.folder / "log.db"
    beside = BESIDE[request.param]
    with closing(SQLiteStore(path)) as store:
        job_id = new_job(store)
        for suffix in ["", *beside] if beside else []:
            shutil.copy(f"{path}{suffix}", f"{there}{suffix}")
    if not beside:
        shutil.copy(path, there)
    disk.freeze()
    return there, job_id


def test_the_history_is_read(left: tuple[Path, str]) -> None:
    path, job_id = left
    with closing(SQLiteStore(path, create=False)) as store:
        assert [head.job_id for head in store.heads(HeadQuery())] == [job_id]
        assert [event.version for event in store.read(job_id)] == list(range(1, store.head(job_id).version + 1))
        assert store.inspection.damage() == []
        assert not store.await_hint(0.01)


def test_a_write_says_that_the_disk_is_read_only(left: tuple[Path, str]) -> None:
    path, job_id = left
    beside = sorted(os.listdir(path.parent))
    with closing(SQLiteStore(path)) as store, pytest.raises(StoreUnavailable, match=r"log\.db is on a read-only disk"):
        store.append_locked(job_id, store.head(job_id).position, LogBuilder(VirtualClock()).proposing(changed(1)))
    assert sorted(os.listdir(path.parent)) == beside


def test_the_cli_shows_the_job_and_refuses_to_pause_it(left: tuple[Path, str]) -> None:
    path, job_id = left
    environment = {"STEPLOG_DATABASE_URL": f"sqlite:///{path}"}
    shown = CliRunner().invoke(main, ["events", job_id], env=environment)
    assert (shown.exit_code, "ContextChanged" in shown.output) == (0, True)
    paused = CliRunner().invoke(main, ["pause", job_id], env=environment)
    assert (paused.exit_code, "read-only disk" in paused.output) == (6, True)


@pytest.mark.parametrize("left", ["closed", "copied without its index"], indirect=True)
def test_a_store_that_read_there_writes_and_sees_others_write_once_that_is_possible(
    left: tuple[Path, str], disk: Disk
) -> None:
    path, job_id = left
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as reader:
        assert reader.head(job_id) == store.head(job_id)
        before = reader.commit_mark()
        disk.thaw()
        jobs = {job_id, new_job(store)}
        assert reader.commit_mark() != before
        assert {head.job_id for head in reader.heads(HeadQuery())} == jobs
