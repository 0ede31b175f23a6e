"""Connections to one SQLite file: how they are opened and checked, one writer, a pool of readers, one checkpointer."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from steplog.eventstore.errors import OutcomeUnknown, StatementFailed, StoreUnavailable
from steplog.eventstore.record_lock import LockFile
from steplog.eventstore.sqlite_errors import DRIVER_ERRORS, translate, translated
from steplog.eventstore.sqlite_files import FileKey, forget, refuse_inherited, remember
from steplog.eventstore.sqlite_watchdog import Watchdog

SQLITE_FLOOR = (3, 35, 0)
WAL_RESET_FIXED = (3, 51, 3)
CHECKPOINT_BYTE = 0
"""The byte of the lock file whose holder is the one process that checkpoints."""

ROLE_RETRY_WRITES = 64
"""After how many writes a process without the checkpointer's role asks for it again."""

LOOK_UP_S = 0.1
"""How often whoever waits for a commit of others looks at the file."""

_WAL = "-wal"
_HOW_FROZEN = {False: "mode=ro&immutable=1", True: "mode=ro&vfs=unix-none"}
"""How a file is read that nobody can write to: without locks, and by whether there is a WAL."""

_log = logging.getLogger("steplog.eventstore.sqlite")
_log.addHandler(logging.NullHandler())


class Connections:
    """Every connection that one store has to its file."""

    def __init__(self, path: Path, *, create: bool, busy_timeout_s: float) -> None:
        if sqlite3.sqlite_version_info < SQLITE_FLOOR:
            raise StoreUnavailable(f"SQLite 3.35 is needed (is {sqlite3.sqlite_version})")
        self._path = Path(os.path.realpath(path))
        self._mode = "rwc" if create else "rw"
        self._busy_timeout_s = busy_timeout_s
        self._pid = os.getpid()
        self._writer: sqlite3.Connection | None = None
        self._writer_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._lock_file: LockFile | None = None
        self._writes = 0
        self._commit_failed = False
        self.flushed = False
        """Whether the present writer has made a commit that changed something: all before it is on the disk too."""
        self.watchdog = Watchdog()
        self._watching = threading.Lock()
        self._watcher: sqlite3.Connection | None = None
        self._watchers = 0
        self._watches_frozen = False
        self._awaiting = threading.Lock()
        self._seen_mark: str | None = None
        self._file_key: FileKey | None = None
        self._opening = threading.Lock()
        self._closed = False

    @property
    def locks(self) -> LockFile:
        """The file beside the database whose bytes say who lives."""
        with self._opening:
            if self._lock_file is None:
                try:
                    self._lock_file = LockFile.shared(self._path.with_name(f"{self._path.name}-workers"))
                except OSError as error:
                    raise StoreUnavailable(f"the file of locks beside the database: {error}") from error
            return self._lock_file

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that cannot write. It is not used again if the body fails in SQLite."""
        self._check_usable()
        connection = self._idle_reader() or self._open_reader()
        try:
            yield connection
        except DRIVER_ERRORS as error:
            connection.close()
            raise translate(error) from error
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The one writer, inside a transaction that is committed and durable when the body ends.

        Raises OutcomeUnknown where the commit itself failed; whatever else is raised, nothing was stored.
        """
        self._check_usable()
        with self._writer_lock:
            connection = self._ready_writer()
            changes = connection.total_changes
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
            except DRIVER_ERRORS as error:
                self._drop_writer()
                raise translate(error) from error
            except BaseException:
                self._roll_back()
                raise
            self._commit(connection)
            self.flushed = self.flushed or connection.total_changes > changes

    def await_commit(self, timeout_s: float) -> bool:
        """Wait until some connection has committed, or for so long; whether one has. The file is only read."""
        give_up_at = time.monotonic() + timeout_s
        with self._awaiting:
            while not self._closed:
                seen, self._seen_mark = self._seen_mark, self.commit_mark()
                if seen not in (None, self._seen_mark):
                    return True
                left_s = give_up_at - time.monotonic()
                if left_s <= 0:
                    return False
                time.sleep(min(left_s, LOOK_UP_S))
        return False

    def commit_mark(self) -> str:
        """A text that changes with every commit: what one connection, which never writes, sees of the others' commits.

        The number that SQLite keeps is that connection's own, so each new one has a name of its own before it.
        """
        self._check_usable()
        with self._watching:
            if self._watches_frozen and not self._is_frozen():
                self._stop_watching()
            if self._watcher is None:
                self._watches_frozen = self._is_frozen()
                self._watcher = self._open_reader()
                self._watchers += 1
            try:
                (number,) = self._watcher.execute("PRAGMA data_version").fetchone()
            except DRIVER_ERRORS as error:
                self._stop_watching()
                raise translate(error) from error
            return f"{self._watchers}.{number}"

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def begin_own(self) -> sqlite3.Connection:
        """A connection of the caller's own, in a transaction; until `end_own` nobody else of this process writes.

        Whoever else wants to write waits for its turn in here, so that nobody is starved by SQLite's own waiting.
        """
        self._check_usable()
        self._writer_lock.acquire()
        try:
            self._ready_writer()
            connection = self._open_writer()
            try:
                # What the handler's tables declare holds, as it would elsewhere; by default SQLite ignores it.
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("BEGIN IMMEDIATE")
            except DRIVER_ERRORS as error:
                connection.close()
                raise translate(error) from error
        except BaseException:
            self._writer_lock.release()
            raise
        return connection

    def commit_own(self, connection: sqlite3.Connection) -> None:
        """Make durable what was written there. Raises as `writing` does, StatementFailed where a constraint says no."""
        try:
            connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise StatementFailed(f"refused at commit: {error}", code=error.sqlite_errorname) from error
        except sqlite3.Error as error:
            self._drop_writer()
            self._commit_failed = True
            raise OutcomeUnknown(f"whether the transaction is stored is not known: {translate(error)}") from error

    def end_own(self, connection: sqlite3.Connection) -> None:
        """Undo what was not committed there, and let others write."""
        with suppress(sqlite3.Error):
            connection.close()
        self._writer_lock.release()

    def close(self) -> None:
        """Close everything that is not in use this moment; that is closed when it is given back."""
        self._closed = True
        if self._pid != os.getpid():
            return
        with self._writer_lock:
            self._drop_writer()
        self._close_idle()
        with self._watching:
            self._stop_watching()
        with self._opening:
            if self._file_key is not None:
                forget(self._file_key)
                self._file_key = None
            if self._lock_file is not None:
                self._lock_file.release()
                self._lock_file = None

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise StoreUnavailable(f"{self._path} was opened before this process was forked: open the store anew")
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed")

    # --- opening -----------------------------------------------------------------------------------------------------

    def _open_reader(self) -> sqlite3.Connection:
        if self._is_frozen():
            return self._open(_HOW_FROZEN[self._has(_WAL)], _set_up_frozen)
        return self._open("mode=rw", _set_up_reader)

    def _open_writer(self) -> sqlite3.Connection:
        if not self._folder_takes_files():
            raise StoreUnavailable(f"{self._path} is on a read-only disk, or in a folder that only others may write to")
        return self._open(f"mode={self._mode}", _set_up_writer)

    def _is_frozen(self) -> bool:
        """Whether nobody has the file open who writes, and SQLite cannot make beside it what its readers need."""
        return not self._folder_takes_files() and not self._has("-shm") and self._path.exists()

    def _folder_takes_files(self) -> bool:
        return os.access(self._path.parent, os.W_OK) or not self._path.parent.exists()

    def _has(self, suffix: str) -> bool:
        return self._path.with_name(self._path.name + suffix).exists()

    def _open(self, how: str, set_up: Callable[[sqlite3.Connection, float], None]) -> sqlite3.Connection:
        refuse_inherited(self._path)
        with translated():
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?{how}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=self._busy_timeout_s,
            )
            try:
                set_up(connection, self._busy_timeout_s)
            except BaseException:
                connection.close()
                raise
        with self._opening:
            if self._file_key is None:
                self._file_key = remember(self._path)
        return connection

    # --- the writer --------------------------------------------------------------------------------------------------

    def _ready_writer(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed")
        if self._writer is None:
            self._writer = self._open_writer()
            self._writes, self.flushed = 0, False
            if self._ask_for_checkpoints(self._writer):
                self._write_anew(self._writer)
            elif sqlite3.sqlite_version_info < WAL_RESET_FIXED:
                _log.warning(
                    "%s is in use by another process too: SQLite %s has a rare bug in resetting the WAL under two"
                    " processes, fixed in 3.51.3",
                    self._path,
                    sqlite3.sqlite_version,
                )
        elif self._writes % ROLE_RETRY_WRITES == 0:
            with translated():
                self._ask_for_checkpoints(self._writer)
        self._writes += 1
        return self._writer

    def _ask_for_checkpoints(self, writer: sqlite3.Connection) -> bool:
        """Whether this process is the one that checkpoints; the role of one that died is there to be taken."""
        has_role = self.locks.take(CHECKPOINT_BYTE)
        if has_role:
            _check(writer, "PRAGMA wal_autocheckpoint = 1000", 1000)
        return has_role

    def _write_anew(self, writer: sqlite3.Connection) -> None:
        """After a flush that failed the kernel may never write those pages of the WAL: put them into the database."""
        if not self._commit_failed:
            return
        try:
            busy, in_wal, written = writer.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if busy or in_wal != written:
                raise StoreUnavailable("the database is in use: what a failed commit left cannot be secured yet")
        except BaseException as error:
            self._drop_writer()
            if isinstance(error, DRIVER_ERRORS):
                raise translate(error) from error
            raise
        self._commit_failed = False

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._drop_writer()
            self._commit_failed = True
            raise OutcomeUnknown(f"whether the last write is stored is not known: {translate(error)}") from error

    def _roll_back(self) -> None:
        if self._writer is None or not self._writer.in_transaction:
            return
        try:
            self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_writer()

    def _drop_writer(self) -> None:
        """The next write opens a new connection: one that met an I/O error is not to be trusted."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(sqlite3.Error):
                writer.close()

    # --- the readers -------------------------------------------------------------------------------------------------

    def _give_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._closed or self._is_frozen():
            self._close_idle()

    def _idle_reader(self) -> sqlite3.Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _close_idle(self) -> None:
        while connection := self._idle_reader():
            connection.close()


def _set_up_reader(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    _check(connection, "PRAGMA busy_timeout", round(busy_timeout_s * 1000))
    connection.execute("PRAGMA query_only = ON")
    _check(connection, "PRAGMA query_only", 1)


def _set_up_frozen(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # the index of the WAL is kept in memory then
    _set_up_reader(connection, busy_timeout_s)


def _set_up_writer(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    _check(connection, "PRAGMA busy_timeout", round(busy_timeout_s * 1000))
    _use_wal(connection, busy_timeout_s)
    connection.execute("PRAGMA synchronous = FULL")
    _check(connection, "PRAGMA synchronous", 2)
    # On macOS fsync alone does not reach the disk; elsewhere these two change nothing.
    connection.execute("PRAGMA fullfsync = ON")
    _check(connection, "PRAGMA fullfsync", 1)
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    _check(connection, "PRAGMA checkpoint_fullfsync", 1)
    _check(connection, "PRAGMA wal_autocheckpoint = 0", 0)


def _use_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch the file to WAL; where several do so at once SQLite refuses one of them now and then without waiting."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            return _check(connection, "PRAGMA journal_mode = WAL", "wal")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def _check(connection: sqlite3.Connection, pragma: str, expected: int | str) -> None:
    (actual,) = connection.execute(pragma).fetchone()
    if actual != expected:
        raise StoreUnavailable(f"SQLite answers {actual} to {pragma} (expected {expected})")
