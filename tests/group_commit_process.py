"""A process that commits one group of appends and is killed inside: by its own hand at a statement of SQLite, or by
whoever is told that it is about to begin. What it was told is stored it notes outside, before anything else.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from witness_process import Place

from steplog.eventstore.store import Answer, Append, Code, Store
from steplog.eventstore.writer import Writer


@dataclass(frozen=True)
class KillStatement:
    """Before or after the statement that begins so, the n-th of them in the group."""

    begins: str
    number: int
    when: Literal["before", "after"]


class Mortal(sqlite3.Connection):
    """A connection that is the end of its process."""

    at: KillStatement | None = None
    seen = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._die("before", sql)
        cursor = super().execute(sql, *parameters)
        self._die("after", sql)
        return cursor

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._die("before", sql)
        cursor = super().executemany(sql, *parameters)
        self._die("after", sql)
        return cursor

    def _die(self, when: str, statement: str) -> None:
        at = Mortal.at
        if at is None or not statement.lstrip().startswith(at.begins):
            return
        Mortal.seen += when == "before"
        if Mortal.seen == at.number and when == at.when:
            os.kill(os.getpid(), signal.SIGKILL)


class Gated:
    """A store that lets one append in at first, so that the others become one group, and asks before that group."""

    def __init__(self, store: Store, control: Connection, kill: KillStatement | None) -> None:
        self._store = store
        self._control = control
        self._kill = kill
        self._calls = 0
        self.entered = threading.Event()
        self.queued = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        self._calls += 1
        if self._calls == 1:
            self.entered.set()
            self.queued.wait()
        if self._calls == 2:
            self._control.send(len(batch))
            self._control.recv()
            Mortal.at = self._kill
        return self._store.append(batch)


def commit_group(
    place: Place,
    first: Append,
    group: Sequence[Append],
    kill: KillStatement | None,
    control: Connection,
    acks: Path,
) -> None:
    """Append the first alone and the others as one group; note each job that was answered `stored`."""
    connect: Any = sqlite3.connect
    sqlite3.connect = lambda *given, **named: connect(*given, **named, factory=Mortal)
    store = place.open()
    gated = Gated(store, control, kill)
    notes = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(promised: Future[Answer]) -> None:
        if promised.exception() is None and promised.result().code is Code.STORED:
            os.write(notes, f"{promised.result().job_id}\n".encode())

    stand_in: Any = gated
    writer = Writer(stand_in)
    writer.append(first).add_done_callback(note)
    gated.entered.wait()
    for item in group:
        writer.append(item).add_done_callback(note)
    gated.queued.set()
    writer.close()
    store.close()
