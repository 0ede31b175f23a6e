"""A handler's transaction in SQLite: its statements, and the append that is the last of them.

What the log does at its end is given by whose transaction it is: the store in a file, or the one in memory that tests
use.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import StatementFailed, StoreError, TransactionClosed, TransactionEnded
from steplog.eventstore.events import Event
from steplog.eventstore.sqlite_errors import translate
from steplog.eventstore.store import Answer, Append
from steplog.eventstore.transaction import Rows, texts_for

_INTERRUPT_EVERY_S = 0.02

_REFUSALS = (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError)
"""What sqlite3 raises for a statement: also a number or text that SQLite cannot hold."""

_BACK_TO_SAVEPOINT = re.compile(
    r"(\s|/\*.*?\*/|--[^\n]*\n)*rollback\s+(transaction\s+)?to\b", re.IGNORECASE | re.DOTALL
)


class Ending(Protocol):
    """How a transaction meets the log."""

    def append(self, item: Append) -> Answer:
        """Judge the append and put it in if it is accepted; the head is held from then on."""
        ...

    def tail(self, job_id: str, known: Position) -> list[Event]:
        """What stands behind `known`."""
        ...

    def commit(self) -> None:
        """Make statements and append durable together."""
        ...

    def let_go(self) -> None:
        """Undo what was not committed, and let others write."""
        ...


class SQLiteTransaction:
    """A transaction that `connection` is in."""

    def __init__(self, connection: sqlite3.Connection, ending: Ending, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._connection = connection
        self._ending = ending
        self._failed: StatementFailed | None = None
        self._over = False
        self._let_go = False
        self._busy = threading.Lock()

    @property
    def is_lost(self) -> bool:
        return False

    # --- the handler's statements ------------------------------------------------------------------------------------

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        query = _query(statement, [parameters])
        goes_back = _BACK_TO_SAVEPOINT.match(statement) is not None
        with self._statement(goes_back=goes_back):
            cursor = self._connection.execute(query, parameters)
            rows = Rows(cursor.fetchall(), cursor.rowcount)
        if goes_back:
            self._failed = None
        return rows

    def execute_many(self, statement: str, each: Iterable[Sequence[Any]]) -> Rows:
        each = list(each)
        query = _query(statement, each)
        with self._statement(), self._all_or_none():
            return Rows([], self._connection.executemany(query, each).rowcount)

    # --- its end -----------------------------------------------------------------------------------------------------

    def append(self, item: Append) -> Answer:
        with self._own_statement():
            if self._failed is not None:
                raise self._spoiled()
            self._connection.execute("PRAGMA query_only = OFF")  # the handler may have said that it only reads
            return self._ending.append(item)

    def tail(self, job_id: str, known: Position) -> list[Event]:
        with self._own_statement():
            return self._ending.tail(job_id, known)

    def commit(self) -> None:
        with self._busy:
            self._refuse_unless_open()
            self._over = True
            try:
                self._ending.commit()
            finally:
                self._end()

    def roll_back(self) -> None:
        self._over = True
        while not self._busy.acquire(timeout=_INTERRUPT_EVERY_S):
            self._connection.interrupt()
        try:
            self._end()
        finally:
            self._busy.release()

    # --- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _statement(self, *, goes_back: bool = False) -> Iterator[None]:
        """For a statement of the handler's: its errors, and whether the transaction is still there.

        SQLite itself goes on behind a statement that failed. PostgreSQL does not until one goes back to a savepoint set
        before, and handlers are to run on both.
        """
        with self._busy:
            self._refuse_unless_open()
            if self._failed is not None and not goes_back:
                raise self._spoiled()
            try:
                yield
            except _REFUSALS as error:
                raise self._explain(error) from error
            self._refuse_unless_open()

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """A row that the driver refuses takes those before it along."""
        self._connection.execute("SAVEPOINT steplog_many")
        try:
            yield
        except _REFUSALS:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO steplog_many")
            raise
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE steplog_many")

    @contextmanager
    def _own_statement(self) -> Iterator[None]:
        with self._busy:
            self._refuse_unless_open()
            try:
                yield
            except sqlite3.Error as error:
                raise translate(error) from error

    def _explain(self, error: Exception) -> StoreError:
        if self._over:
            return TransactionClosed()
        code = getattr(error, "sqlite_errorname", None)
        failure = StatementFailed(f"{type(error).__name__}: {error}", code=code)
        if not _is_of_a_value(error):
            self._failed = self._failed or failure
        return failure

    def _refuse_unless_open(self) -> None:
        if self._over:
            raise TransactionClosed
        if not self._connection.in_transaction:
            raise TransactionEnded if self._failed is None else self._spoiled()

    def _spoiled(self) -> StatementFailed:
        return StatementFailed(f"an earlier statement failed and the handler went on: {self._failed}")

    def _end(self) -> None:
        if not self._let_go:
            self._let_go = True
            self._ending.let_go()


def _is_of_a_value(error: Exception) -> bool:
    """Whether a parameter was refused, by the driver: its statement never came to be one."""
    refused = (OverflowError, ValueError, sqlite3.InterfaceError)
    return isinstance(error, refused) or str(error).startswith("Error binding")


def _query(statement: str, each: Sequence[Sequence[Any]]) -> str:
    """The handler's statement as SQLite takes it. Raises StatementFailed."""
    return "?".join(texts_for(statement, each))


def open_in_memory() -> sqlite3.Connection:
    """A database of its own that any thread may use, gone when it is closed."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
