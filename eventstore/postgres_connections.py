"""Connections to one PostgreSQL schema: how they are opened and checked, one writer, a few for everything else.

No session state is relied on (no SET, no prepared statements, no session locks), so a transaction pooler may stand in
between.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, LiteralString, Self, TypeVar, cast

import orjson
import psycopg
from psycopg import generators, sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import TupleRow

from steplog.eventstore.errors import OutcomeUnknown, StoreError, StoreUnavailable
from steplog.eventstore.postgres_errors import Kind, kind_of, translate

IDLE_MAX = 4
RETRY_WAITS_S = (0.01, 0.05, 0.2)

_DEFAULTS: dict[str, str | int] = {
    "application_name": "steplog",
    "client_encoding": "utf8",
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_SEVERAL_HOSTS: dict[str, str] = {"target_session_attrs": "read-write"}
"""Where several servers may be the one: which of them writes at present is found out by each new connection."""

_RETRIED = (Kind.AGAIN, Kind.ELSEWHERE)

_BEGIN = sql.SQL(
    "begin isolation level read committed; set local lock_timeout = {lock_ms};"
    " set local statement_timeout = {statement_ms}; set local idle_in_transaction_session_timeout = {idle_ms}"
)

_log = logging.getLogger("steplog.eventstore.postgres")

T = TypeVar("T")
Parameters = Sequence[Any] | dict[str, Any]
Run = Callable[[LiteralString, Parameters], list[TupleRow]]
"""Runs one statement, with `{s}` for the schema, and gives its rows."""


class Connection(psycopg.Connection[TupleRow]):
    """A connection that keeps the server's last warning.

    A commit whose wait for a standby was cancelled reports success and says so in a warning alone.
    """

    warning: str | None = None
    answer_s_max: float = 0

    @classmethod
    def open(cls, parameters: dict[str, Any], answer_s_max: float) -> Self:
        hosts = f"{parameters.get('host')}{parameters.get('hostaddr')}"
        defaults = {**_DEFAULTS, **(_SEVERAL_HOSTS if "," in hosts else {})}
        connection = cls.connect(autocommit=True, prepare_threshold=None, **{**defaults, **parameters})
        connection.answer_s_max = answer_s_max
        connection.add_notice_handler(connection.note)
        return connection

    def wait(self, gen: PQGen[T], *given: Any, **named: Any) -> T:
        """The same with a deadline: a peer that takes bytes and stays silent keeps every keepalive alive."""
        return super().wait(_limited(gen, time.monotonic() + self.answer_s_max), *given, **named)

    def note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warning = diagnostic.message_primary
            _log.warning("the server warns: %s", self.warning)

    def json(self, statement: bytes, parameters: Sequence[bytes]) -> Any:
        """The one JSON value that a statement gives, its parameters `$1`, `$2` and so on, each as text.

        Through libpq itself: with a cursor of psycopg's the same takes three times the CPU.
        """
        self.pgconn.send_query_params(statement, parameters)
        results = self.wait(generators.execute(self.pgconn))
        for result in results:
            if result.status != ExecStatus.TUPLES_OK:
                raise psycopg.errors.error_from_result(result)
        return orjson.loads(results[0].get_value(0, 0) or b"null")

    def rows(self, statement: bytes, parameters: Parameters) -> list[TupleRow]:
        found = self.execute(statement, parameters)
        return found.fetchall() if found.description else []


class Connections:
    """Every connection that one store has to its schema."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        *,
        lock_timeout_s: float,
        answer_s_max: float,
        check: Callable[[Connection], None],
    ) -> None:
        self._parameters = _parse(dsn)
        self._answer_s_max = answer_s_max
        self._schema = sql.Identifier(schema)
        self._lock_timeout_s = lock_timeout_s
        self._check = check
        self._checked = False
        self._pid = os.getpid()
        self._closed = False
        self._writer: Connection | None = None
        self._writer_lock = threading.Lock()
        self._idle: list[Connection] = []
        self.sql = lru_cache(maxsize=None)(self._compose)

    def _compose(self, text: LiteralString) -> bytes:
        """The statement with the schema's quoted name for `{s}`."""
        return sql.SQL(text).format(s=self._schema).as_bytes(None)

    # --- what a caller does with them --------------------------------------------------------------------------------

    def rows(self, text: LiteralString, parameters: Parameters) -> list[TupleRow]:
        """The rows of one statement that may be repeated: a connection that went stale is replaced once."""
        while True:
            connection, fresh = self._lend()
            try:
                found = connection.rows(self.sql(text), parameters)
            except psycopg.Error as error:
                if kind_of(error) not in (Kind.UNKNOWN, Kind.ELSEWHERE):
                    self._give_back(connection)
                    raise translate(error) from error
                self._drop_all(connection)
                if fresh:
                    raise translate(error) from error
            except UnicodeEncodeError as error:
                self._give_back(connection)
                raise StoreError(f"text that cannot be sent: a lone surrogate at character {error.start}") from None
            except BaseException:
                connection.close()
                raise
            else:
                self._give_back(connection)
                return found

    def write(self, text: LiteralString, parameters: Sequence[bytes]) -> Any:
        """The JSON value of one statement that commits by itself, on the one writer; its parameters are `$1`, `$2`.

        Raises OutcomeUnknown where the writer cannot be reached: the same may have been stored by an earlier try.
        Psycopg's error is passed on where the database asks to do it again.
        """
        with self._writing() as connection:
            return connection.json(self.sql(text), parameters)

    def write_each(self, text: LiteralString, each: Sequence[Sequence[bytes]]) -> list[Any]:
        """The same for several, with `%s`, sent together and each committed by itself; an error is that of any."""
        with self._writing() as connection:
            with connection.pipeline() as pipeline:
                cursors = []
                for parameters in each:
                    cursors.append(connection.execute(self.sql(text), [value.decode() for value in parameters]))
                    pipeline.sync()
            return [cursor.fetchall()[0][0] for cursor in cursors]

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """The one writer, for a body that commits; it is not used again if the body fails."""
        with self._writer_lock:
            connection = self._ready_writer()
            connection.warning = None
            try:
                yield connection
            except BaseException as error:
                self._drop_writer()
                if isinstance(error, psycopg.Error) and kind_of(error) not in _RETRIED:
                    raise translate(error, writing=True) from error
                raise
            self._refuse_warning(connection)
        if self._closed:
            self._drop_unused_writer()

    def transaction(self, work: Callable[[Run], T], *, lock_timeout_s: float | None = None) -> T:
        """What `work` returns, in a short transaction that is committed and durable when this returns.

        Where the database asks for it, it is rolled back and `work` is called again. Raises OutcomeUnknown where the
        commit's outcome is not known; whatever else is raised, nothing was stored.
        """
        return again(lambda: self.transaction_once(work, lock_timeout_s=lock_timeout_s))

    def transaction_once(self, work: Callable[[Run], T], *, lock_timeout_s: float | None = None) -> T:
        """The same, once: psycopg's error is passed on where the database asks to do it again."""
        connection = self._begin(self._lock_timeout_s if lock_timeout_s is None else lock_timeout_s)
        try:
            made = work(lambda text, parameters: connection.rows(self.sql(text), parameters))
        except BaseException as error:
            self._roll_back(connection)
            if not isinstance(error, psycopg.Error):
                raise
            if kind_of(error) is Kind.ELSEWHERE:
                self._drop_all()
            if kind_of(error) not in _RETRIED:
                raise translate(error) from error
            raise
        self._commit(connection)
        self._give_back(connection)
        return made

    def migration(self, work: Callable[[Connection], T], *, keep: bool) -> T:
        """What `work` returns, in a transaction without time limits on a connection of its own."""
        self.refuse_unless_usable()
        try:
            with self._open() as connection, connection.transaction(force_rollback=not keep):
                connection.answer_s_max = math.inf
                made = work(connection)
        except psycopg.Error as error:
            raise translate(error, writing=True) from error
        self._checked = False
        return made

    def own(self) -> Connection:
        """A new connection that belongs to the caller, who closes it."""
        self.refuse_unless_usable()
        return self._open_checked()

    def close(self) -> None:
        """Close everything that is not in use this moment; that is closed when it is given back."""
        self._closed = True
        if self._pid != os.getpid():
            return
        self._drop_unused_writer()
        self._drop_all()

    # --- opening -----------------------------------------------------------------------------------------------------

    def refuse_unless_usable(self) -> None:
        """Raise StoreUnavailable in a process forked since, and once the store is closed."""
        if self._pid != os.getpid():
            raise StoreUnavailable("the store was opened before this process was forked: open it anew")
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _open(self) -> Connection:
        try:
            connection = Connection.open(self._parameters, self._answer_s_max)
        except psycopg.Error as error:
            raise StoreUnavailable(f"the database cannot be reached: {_first_line(error)}") from error
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in (None, "UTF8"):
            connection.close()
            raise StoreError(f"the database's encoding is {encoding} (expected UTF8)")
        return connection

    def _open_checked(self) -> Connection:
        connection = self._open()
        if not self._checked:
            try:
                self._check(connection)
            except BaseException as error:
                connection.close()
                if isinstance(error, psycopg.Error):
                    raise translate(error) from error
                raise
            self._checked = True
        return connection

    # --- the writer --------------------------------------------------------------------------------------------------

    def _ready_writer(self) -> Connection:
        self.refuse_unless_usable()
        if self._writer is None:
            try:
                self._writer = self._open_checked()
            except StoreUnavailable as error:
                raise OutcomeUnknown(f"whether it was stored by an earlier try is not known: {error}") from error
        return self._writer

    def _drop_unused_writer(self) -> None:
        if self._writer_lock.acquire(blocking=False):
            self._drop_writer()
            self._writer_lock.release()

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    # --- the others --------------------------------------------------------------------------------------------------

    def _lend(self) -> tuple[Connection, bool]:
        self.refuse_unless_usable()
        with suppress(IndexError):
            return self._idle.pop(), False
        return self._open_checked(), True

    def _give_back(self, connection: Connection) -> None:
        if len(self._idle) >= IDLE_MAX or connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:
            self._drop_all()

    def _drop_all(self, connection: Connection | None = None) -> None:
        """One that broke is rarely alone: the next call opens a new one."""
        if connection is not None:
            connection.close()
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _begin(self, lock_timeout_s: float) -> Connection:
        lock_ms = max(1, round(lock_timeout_s * 1000))
        begin = _BEGIN.format(lock_ms=lock_ms, statement_ms=lock_ms + 20_000, idle_ms=lock_ms + 20_000).as_bytes(None)
        while True:
            connection, fresh = self._lend()
            connection.warning = None
            try:
                connection.execute(begin)
            except psycopg.Error as error:
                self._drop_all(connection)
                if fresh or kind_of(error) is not Kind.UNKNOWN:
                    raise translate(error) from error
            else:
                return connection

    def _roll_back(self, connection: Connection) -> None:
        if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            with suppress(psycopg.Error):
                connection.execute(b"rollback")
        self._give_back(connection)

    def _commit(self, connection: Connection) -> None:
        try:
            said = connection.execute(b"commit").statusmessage
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error) and kind_of(error) not in _RETRIED:
                raise translate(error, writing=True) from error
            raise
        if said != "COMMIT":
            connection.close()
            raise StoreError(f"the transaction was not committed: the server says {said}")
        self._refuse_warning(connection)

    def _refuse_warning(self, connection: Connection) -> None:
        if connection.warning is not None:
            raise OutcomeUnknown(f"whether the last write is safe is not known: {connection.warning}")


def again(attempt: Callable[[], T]) -> T:
    """What `attempt` returns, tried a few times while the database asks to do it again."""
    for wait_s in RETRY_WAITS_S:
        try:
            return attempt()
        except psycopg.Error as error:
            if kind_of(error) not in _RETRIED:
                raise translate(error) from error
        time.sleep(wait_s)
    try:
        return attempt()
    except psycopg.Error as error:
        raise translate(error) from error


def _limited(gen: PQGen[T], give_up_at: float) -> PQGen[T]:
    """The same steps of a conversation with the server, given up where it is silent for too long."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > give_up_at:
                raise psycopg.OperationalError("the server did not answer in time")
            wanted = gen.send(ready)
    except StopIteration as end:
        return cast(T, end.value)


def _parse(dsn: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(dsn)
    except psycopg.Error:
        # What libpq says of it may repeat the password.
        raise StoreUnavailable("the address is no PostgreSQL address: write postgresql://USER@HOST/DATABASE") from None


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
