"""Locks that say who lives: they are there as long as their process is, and no longer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_program import Process

from steplog.eventstore import record_lock
from steplog.eventstore.record_lock import LockFile

PROGRAM = Path(__file__).with_name("lock_program.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db-workers"


@pytest.fixture
def other(path: Path) -> Iterator[Process]:
    with Process(PROGRAM, path) as process:
        yield process


@pytest.fixture
def file(path: Path) -> Iterator[LockFile]:
    file = LockFile.shared(path)
    yield file
    file.release()


def test_byte_of_a_living_process_is_locked_and_cannot_be_taken(file: LockFile, other: Process) -> None:
    assert other.ask("take", 3)
    assert file.is_locked(3)
    assert not file.take(3)
    assert file.take(4)


def test_byte_of_a_killed_process_is_free_at_once(file: LockFile, other: Process) -> None:
    assert other.ask("take", 3)
    other.kill()
    assert not file.is_locked(3)
    assert file.take(3)


def test_byte_of_a_stopped_process_stays_locked(file: LockFile, other: Process) -> None:
    assert other.ask("take", 3)
    other.stop()
    assert file.is_locked(3)
    other.go_on()


def test_own_byte_is_locked_and_asking_does_not_lose_it(file: LockFile, other: Process) -> None:
    assert file.take(3)
    assert file.is_locked(3)
    assert other.ask("is_locked", 3)


def test_asking_about_a_free_byte_leaves_it_free(file: LockFile, other: Process) -> None:
    assert not file.is_locked(3)
    assert other.ask("take", 3)


def test_freed_byte_can_be_taken_by_others_and_the_rest_stays(file: LockFile, other: Process) -> None:
    assert file.take(3)
    assert file.take(4)
    file.free(3)
    assert not file.is_locked(3)
    assert other.ask("take", 3)
    assert not other.ask("take", 4)


def test_process_opens_a_file_once_under_whatever_name(path: Path, file: LockFile) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert LockFile.shared(path) is file
    assert LockFile.shared(link) is file
    file.release()
    file.release()


def test_file_stays_open_until_its_last_user_releases_it(path: Path, file: LockFile, other: Process) -> None:
    second = LockFile.shared(path)
    assert file.take(3)
    second.release()
    assert other.ask("is_locked", 3)


def test_released_file_is_closed_and_not_deleted(path: Path, other: Process) -> None:
    file = LockFile.shared(path)
    assert file.take(3)
    file.release()
    assert not other.ask("is_locked", 3)
    assert path.exists()
    reopened = LockFile.shared(path)
    assert reopened is not file
    reopened.release()


def test_lock_is_kept_whoever_opens_and_closes_the_file(path: Path, file: LockFile, other: Process) -> None:
    """As a copy of its folder does, or a checksum."""
    assert file.take(3)
    path.read_bytes()
    assert other.ask("is_locked", 3)
    assert not other.ask("take", 3)


def test_where_there_are_only_posix_locks_one_that_foreign_code_dropped_is_renewed(
    path: Path, file: LockFile, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_lock, "_OF_OPENING", None)
    assert file.take(3)
    assert other.ask("is_locked", 3)
    path.read_bytes()
    assert not other.ask("is_locked", 3)
    file.renew(3)
    assert other.ask("is_locked", 3)
    file.free(3)
    assert not other.ask("is_locked", 3)


def test_renewing_takes_no_byte_that_was_not_held(file: LockFile, other: Process) -> None:
    file.renew(3)
    assert not other.ask("is_locked", 3)


def test_a_child_that_outlives_its_parent_does_not_keep_its_locks(file: LockFile, other: Process) -> None:
    assert other.ask("take", 3)
    child = other.ask("fork_and_stay")
    try:
        assert file.is_locked(3)
        other.kill()
        assert not file.is_locked(3)
    finally:
        os.kill(child, signal.SIGKILL)


def test_forked_child_has_none_of_its_parents_locks_and_drops_none(file: LockFile, other: Process) -> None:
    assert other.ask("take", 3)
    found = other.ask("fork_and_close", 3)
    assert found == {"is another": True, "sees parent's": True, "took its own": True, "keeps its own": True}
    assert file.is_locked(3)
    assert not file.is_locked(4)
