"""Hints between processes that there may be work, by NOTIFY: sent on a connection of their own, without a payload.

A hint may get lost (a transaction pooler stands between, a connection broke): it only cuts a wait short. It is never
sent in a transaction that writes the log: there it would end the server's group commit.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

import psycopg
from psycopg import sql

from steplog.eventstore.errors import StoreError
from steplog.eventstore.postgres_connections import Connection, Connections

APART_S_MIN = 0.05
"""At least so long between two hints of one store: what comes meanwhile is told by the second."""
LISTEN_AGAIN_S = 5.0
"""How long a listener whose connection broke does without."""

LOOK_UP_S = 0.5
"""How soon a listener notices that the store is closed."""

_log = logging.getLogger("steplog.eventstore.postgres")


class Hints:
    """The hints of one store: those it sends, and those it hears."""

    def __init__(self, connections: Connections, schema: str) -> None:
        self._connections = connections
        self._channel = f"steplog:{schema}"
        self._lock = threading.Lock()
        self._sent_at = 0.0
        self._waiting: threading.Timer | None = None
        self._hearing = threading.Lock()
        self._listening: Connection | None = None
        self._deaf_until = 0.0
        self._closed = threading.Event()

    # --- sending -----------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Now, or a moment later where the last one was a moment ago; nothing is raised."""
        with self._lock:
            if self._waiting is not None or self._closed.is_set():
                return
            wait_s = self._sent_at + APART_S_MIN - time.monotonic()
            if wait_s > 0:
                self._waiting = threading.Timer(wait_s, self._send)
                self._waiting.daemon = True
                self._waiting.start()
                return
        self._send()

    def _send(self) -> None:
        with self._lock:
            self._waiting, self._sent_at = None, time.monotonic()
        try:
            self._connections.rows("select pg_notify(%s, '')", [self._channel])
        except StoreError as error:
            _log.debug("a hint was not sent: %s", error)

    # --- hearing -----------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float) -> bool:
        """Whether a hint came in time."""
        give_up_at = time.monotonic() + timeout_s
        with self._hearing:
            while not self._closed.is_set() and (left_s := give_up_at - time.monotonic()) > 0:
                if self._hears(min(left_s, LOOK_UP_S)):
                    return True
        return False

    def _hears(self, timeout_s: float) -> bool:
        try:
            connection = self._ready()
            if connection is not None:
                return any(True for _ in connection.notifies(timeout=timeout_s, stop_after=1))
        except (StoreError, psycopg.Error) as error:
            _log.info("hints are not heard, work is looked for every few seconds: %s", error)
            self._drop()
            self._deaf_until = time.monotonic() + LISTEN_AGAIN_S
        self._closed.wait(timeout_s)
        return False

    def _ready(self) -> Connection | None:
        if time.monotonic() < self._deaf_until:
            return None
        if self._listening is None:
            connection = self._connections.own()
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(self._channel)))
            self._listening = connection
        return self._listening

    def _drop(self) -> None:
        connection, self._listening = self._listening, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def close(self) -> None:
        """Send what waits to be sent, and hear nothing more."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
            self._send()
        self._closed.set()
        with self._hearing:
            self._drop()
