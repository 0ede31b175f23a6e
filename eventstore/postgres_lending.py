"""Connections lent to handlers' transactions, one attempt at a time, each as if it were new.

A few are kept. Whatever a handler did to its session is undone before it is lent again, or it is not kept: locks and
listening end with the attempt, and nothing of it is there for the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

import psycopg
from psycopg.pq import TransactionStatus

from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.postgres_connections import Connection

LENT_MAX = 16
"""How many handlers' transactions are open at once; a further one waits for one of these."""
KEPT_S_MAX = 300.0
"""How long a connection is kept that nobody wants."""
WAIT_S_MAX = 5.0
RESET_S_MAX = 2.0
"""How long rolling back and undoing may take before the connection is given up."""

# All of DISCARD ALL but the plans, which belong to no handler, in one round trip.
_ROLL_BACK = b"rollback;"
_RESET = b"""
close all; set session authorization default; reset role; reset all; deallocate all; unlisten *;
select pg_advisory_unlock_all(); discard temp; discard sequences
"""


class Lending:
    """The connections of one store that its handlers' transactions have, or had."""

    def __init__(self, open: Callable[[], Connection], refuse_unless_usable: Callable[[], None]) -> None:
        self._open = open
        self._refuse_unless_usable = refuse_unless_usable
        self._free = threading.Semaphore(LENT_MAX)
        self._kept: list[tuple[Connection, float]] = []
        """With the time of their return, the latest last."""
        self._lock = threading.Lock()
        self._closed = False

    def lend(self) -> tuple[Connection, bool]:
        """A connection, and whether it is new; whoever has it gives it back. Raises StoreUnavailable."""
        self._refuse_unless_usable()
        if not self._free.acquire(timeout=WAIT_S_MAX):
            raise StoreUnavailable(f"{LENT_MAX} handlers' transactions are open: one more waits for one of them")
        try:
            kept = self._pop_kept()
            return (kept, False) if kept is not None else (self._open(), True)
        except BaseException:
            self._free.release()
            raise

    def give_back(self, connection: Connection, *, is_sound: bool) -> None:
        """Undo what was done to it and keep it; if it is not sound, or that cannot be done, close it."""
        try:
            keep = is_sound and not self._closed and _reset(connection)
            with self._lock:
                if keep and not self._closed:
                    self._kept.append((connection, monotonic()))
                    return
            connection.close()
        finally:
            self._free.release()

    def drop_kept(self) -> None:
        """One that broke is rarely alone: the next are opened anew."""
        with self._lock:
            kept, self._kept = self._kept, []
        for connection, _ in kept:
            connection.close()

    def close(self) -> None:
        """Close what is kept; what is lent is closed when it comes back."""
        self._closed = True
        self.drop_kept()

    def _pop_kept(self) -> Connection | None:
        """The one that came back last; those that nobody has wanted for long are closed."""
        too_old = monotonic() - KEPT_S_MAX
        with self._lock:
            old = [connection for connection, at in self._kept if at < too_old]
            self._kept = [each for each in self._kept if each[1] >= too_old]
            popped = self._kept.pop()[0] if self._kept else None
        for connection in old:
            connection.close()
        return popped


def _reset(connection: Connection) -> bool:
    """Whether its session is as if it were new."""
    answer_s_max, connection.answer_s_max = connection.answer_s_max, RESET_S_MAX
    is_idle = connection.info.transaction_status is TransactionStatus.IDLE
    try:
        connection.execute(_RESET if is_idle else _ROLL_BACK + _RESET)
    except psycopg.Error:
        return False
    connection.answer_s_max = answer_s_max
    return not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
