"""A handler's transaction in PostgreSQL, on a connection lent to it alone, and the append that is its last statement.

No lock of the log's is held while the handler runs. What the handler may have done to the connection is looked at, and
put right, before the append: whether it is still the transaction that was begun shows in a setting local to it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from steplog.eventstore import postgres_tables as tables
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import (
    OutcomeUnknown,
    StatementFailed,
    StoreError,
    StoreUnavailable,
    TransactionClosed,
    TransactionEnded,
)
from steplog.eventstore.events import Event
from steplog.eventstore.postgres_connections import Connection, Parameters
from steplog.eventstore.postgres_errors import Kind, kind_of, translate
from steplog.eventstore.postgres_lending import Lending
from steplog.eventstore.store import Answer, Append, Code
from steplog.eventstore.stream import tail_of
from steplog.eventstore.transaction import Rows, texts_for

CANCEL_S_MAX = 5.0
SERVER_PATIENCE_S = 1.0
"""How much longer than its timeout the server waits for a handler that nobody is there any more to stop."""

_MS_MAX = (1 << 31) - 1
"""The longest time that the server's settings take: 24 days."""

_VALUES = (UnicodeError, OverflowError, ValueError)
"""What psycopg raises for a value that cannot be sent."""

_BEGIN = """
select current_setting('synchronous_commit'), current_setting('transaction_read_only'),
       set_config('steplog.transaction', %(token)s, true),
       set_config('statement_timeout', coalesce(%(ms)s, current_setting('statement_timeout')), true),
       set_config('idle_in_transaction_session_timeout',
                  coalesce(%(ms)s, current_setting('idle_in_transaction_session_timeout')), true)
"""

# The handler may have changed any setting of its transaction, and with one of them how durable its commit is.
_READY = """
select current_setting('steplog.transaction', true), current_setting('transaction_read_only'),
       set_config('lock_timeout', %(lock_ms)s, true),
       set_config('statement_timeout', %(statement_ms)s, true),
       set_config('synchronous_commit', %(synchronous_commit)s, true)
"""

_LOCK_HEAD = "select true from {s}.jobs where job_id = %s for no key update"


class PostgresTransaction:
    """A transaction on a connection that goes back with it. READ COMMITTED, whatever the database's default.

    Raises StoreUnavailable where there is no connection that can write.
    """

    def __init__(
        self,
        lending: Lending,
        sql: Callable[[LiteralString], bytes],
        *,
        timeout_s: float | None,
        lock_timeout_s: float,
    ) -> None:
        self.timeout_s = timeout_s
        self._lending = lending
        self._sql = sql
        self._lock_ms = max(1, round(lock_timeout_s * 1000))
        self._token = uuid4().hex
        self._failed: StatementFailed | None = None
        self._ended: StoreError | None = None
        self._over = False
        self._is_lent = True
        self._busy = threading.Lock()
        self._connection = self._begun()
        self._answer_s_max = self._connection.answer_s_max
        # A statement of the handler's may take as long as the handler may.
        self._connection.answer_s_max = math.inf if timeout_s is None else timeout_s + SERVER_PATIENCE_S

    @property
    def is_lost(self) -> bool:
        return isinstance(self._ended, StoreUnavailable)

    # --- the handler's statements ------------------------------------------------------------------------------------

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        query = _query(statement, [parameters])
        with self._statement(self._explain):
            cursor = self._connection.execute(query, parameters)
            return Rows(cursor.fetchall() if cursor.description else [], cursor.rowcount)

    def execute_many(self, statement: str, each: Iterable[Sequence[Any]]) -> Rows:
        each = list(each)
        query = _query(statement, each)
        with self._statement(self._explain), self._all_or_none(), self._connection.cursor() as cursor:
            cursor.executemany(query, each)
            return Rows([], cursor.rowcount)

    # --- its end -----------------------------------------------------------------------------------------------------

    def append(self, item: Append) -> Answer:
        with self._statement(translate):
            self._make_ready()
            if not self._lock_head(item.job_id):
                return Answer(item.job_id, Code.BUSY, item.expected.version)
            return tables.append_one(self._run, item)

    def tail(self, job_id: str, known: Position) -> list[Event]:
        with self._statement(translate):
            rows = tables.rows_after(self._run, job_id, known.version)
            return tail_of(tables.get_head(self._run, job_id), rows, known)

    def commit(self) -> None:
        with self._busy:
            self._refuse_unless_open()
            self._over = True
            try:
                self._commit()
            except StatementFailed:
                self._give_back(is_sound=True)
                raise
            except BaseException:
                self._give_back(is_sound=False)
                raise
            self._give_back(is_sound=True)

    def roll_back(self) -> None:
        self._over = True
        if not self._busy.acquire(blocking=False):
            with suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=CANCEL_S_MAX)
            if not self._busy.acquire(timeout=CANCEL_S_MAX):
                return  # whoever waits for the server gives the connection back
        self._give_back(is_sound=self._ended is None)
        self._busy.release()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _begun(self) -> Connection:
        """A connection on which the transaction has begun: one that went stale meanwhile is replaced by a new one."""
        while True:
            connection, is_new = self._lending.lend()
            try:
                if self._begin(connection) or is_new:
                    return connection
                error: psycopg.Error | None = None
            except psycopg.Error as broken:
                error = broken
            except BaseException:
                self._lending.give_back(connection, is_sound=False)
                raise
            self._lending.give_back(connection, is_sound=False)
            self._lending.drop_kept()
            if is_new and error is not None:
                raise translate(error) from error

    def _begin(self, connection: Connection) -> bool:
        """Begin on it; whether it can write, as a server cannot that has become a standby."""
        ms = None
        if self.timeout_s is not None:
            ms = str(min(math.ceil((self.timeout_s + SERVER_PATIENCE_S) * 1000), _MS_MAX))
        connection.warning = None
        connection.execute(b"begin isolation level read committed")
        begun = connection.rows(self._sql(_BEGIN), {"token": self._token, "ms": ms})
        ((self._synchronous_commit, read_only, *_),) = begun
        return bool(read_only == "off")

    def _give_back(self, *, is_sound: bool) -> None:
        """Once."""
        if self._is_lent:
            self._is_lent = False
            self._connection.answer_s_max = self._answer_s_max
            self._lending.give_back(self._connection, is_sound=is_sound)

    @contextmanager
    def _statement(self, explain: Callable[[psycopg.Error], StoreError]) -> Iterator[None]:
        """For a body that talks to the server: its errors explained, and whether the transaction is still there."""
        with self._busy:
            self._refuse_unless_open()
            try:
                yield
            except psycopg.Error as error:
                if self._over:
                    raise TransactionClosed from error
                self._note_end()
                raise explain(error) from error
            except _VALUES as error:
                raise StatementFailed(f"{type(error).__name__}: {error}") from error
            finally:
                if self._over:
                    self._give_back(is_sound=False)
            self._note_end()
            self._refuse_unless_open()

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """A row that the driver refuses takes those before it along; one that the server refuses, the transaction."""
        self._connection.execute(b"savepoint steplog_many")
        try:
            yield
        except Exception:
            if self._connection.info.transaction_status is TransactionStatus.INTRANS:
                self._connection.execute(b"rollback to savepoint steplog_many")
            raise
        self._connection.execute(b"release savepoint steplog_many")

    def _explain(self, error: psycopg.Error) -> StoreError:
        """What a statement of the handler's ended in."""
        said = f"{type(error).__name__}: {_first_line(error)}"
        if kind_of(error) is Kind.UNKNOWN and not isinstance(error, psycopg.errors.QueryCanceled):
            self._ended = StoreUnavailable(f"the connection broke inside the transaction: {said}")
            return self._ended
        failure = StatementFailed(said, code=error.sqlstate)
        self._failed = self._failed or failure
        return failure

    def _note_end(self) -> None:
        if self._connection.info.transaction_status is TransactionStatus.IDLE:
            self._ended = TransactionEnded()

    def _refuse_unless_open(self) -> None:
        if self._over:
            raise TransactionClosed
        if self._ended is not None:
            raise self._ended

    def _make_ready(self) -> None:
        """Insist that this is the transaction that was begun and that it can be committed."""
        if self._connection.info.transaction_status is TransactionStatus.INERROR:
            raise StatementFailed(f"an earlier statement failed and the handler went on: {self._failed}")
        self._connection.answer_s_max = self._answer_s_max
        settings = {
            "lock_ms": str(self._lock_ms),
            "statement_ms": str(self._lock_ms + 20_000),
            "synchronous_commit": self._synchronous_commit,
        }
        ((token, read_only, *_),) = self._run(_READY, settings)
        if token != self._token:
            self._ended = TransactionEnded()
            raise self._ended
        if read_only != "off":
            raise StatementFailed("the handler made its transaction read only: its completion cannot be put in")

    def _lock_head(self, job_id: str) -> bool:
        """Wait for the head, from inside a savepoint: a lock that is not had in time must not cost the transaction."""
        self._connection.execute(b"savepoint steplog_append")
        try:
            self._run(_LOCK_HEAD, [job_id])
        except psycopg.Error as error:
            if kind_of(error) is not Kind.AGAIN:
                raise
            self._connection.execute(b"rollback to savepoint steplog_append")
            return False
        return True

    def _commit(self) -> None:
        self._connection.warning = None
        try:
            said = self._connection.execute(b"commit").statusmessage
        except psycopg.Error as error:
            if kind_of(error) is Kind.UNKNOWN:
                raise translate(error, writing=True) from error
            raise StatementFailed(f"refused at commit: {_first_line(error)}", code=error.sqlstate) from error
        if said != "COMMIT":
            raise StatementFailed(f"nothing was committed: the server says {said}: {self._failed}")
        if self._connection.warning is not None:
            raise OutcomeUnknown(f"whether the transaction is safe is not known: {self._connection.warning}")

    def _run(self, text: LiteralString, parameters: Parameters) -> list[TupleRow]:
        return self._connection.rows(self._sql(text), parameters)


def _query(statement: str, each: Sequence[Sequence[Any]]) -> bytes:
    """The handler's statement as psycopg takes it. Raises StatementFailed."""
    texts = texts_for(statement, each)
    try:
        return "%s".join(text.replace("%", "%%") for text in texts).encode()
    except UnicodeEncodeError as error:
        raise StatementFailed(f"text that cannot be sent: a lone surrogate at character {error.start}") from None


def _first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0]
