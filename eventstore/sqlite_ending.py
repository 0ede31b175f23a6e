"""How a handler's transaction ends in a SQLite file."""

from __future__ import annotations

import sqlite3

from steplog.eventstore import sqlite_log as log
from steplog.eventstore import sqlite_tables as tables
from steplog.eventstore.chain import Position
from steplog.eventstore.events import Event
from steplog.eventstore.sqlite_connections import Connections
from steplog.eventstore.store import Answer, Append


class EndingInFile:
    """The end of one transaction, on a connection of its own."""

    def __init__(self, connections: Connections, connection: sqlite3.Connection) -> None:
        self._connections = connections
        self._connection = connection

    def append(self, item: Append) -> Answer:
        return log.append(self._connection, [item])[0]

    def tail(self, job_id: str, known: Position) -> list[Event]:
        return log.tail(self._connection, tables.get_head(self._connection, job_id), known)

    def commit(self) -> None:
        self._connections.commit_own(self._connection)

    def let_go(self) -> None:
        self._connections.watchdog.forget()
        self._connections.end_own(self._connection)
