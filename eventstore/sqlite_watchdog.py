"""Ends a transaction that nobody has ended in its time: until then nobody else can write to the file.

Whoever was to end it may have blocked its event loop, or closed it. PostgreSQL's server does the same with a timeout.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

_log = logging.getLogger("steplog.eventstore")

PATIENCE_S = 1.0
"""How much longer than its time a transaction is left alone: as a rule its attempt ends it."""


class _Watched(NamedTuple):
    roll_back: Callable[[], None]
    due: float


class Watchdog:
    """Of one store, which has one such transaction at a time. Its thread sleeps until one is due, or there is none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: _Watched | None = None
        self._wakes_at: float | None = None
        """When the thread looks again; None where there is none."""

    def watch(self, roll_back: Callable[[], None], limit_s: float) -> None:
        """Call that once the time is over, unless `forget` was called before."""
        due = time.monotonic() + limit_s + PATIENCE_S
        with self._changed:
            self._watched = _Watched(roll_back, due)
            if self._wakes_at is None:
                self._wakes_at = due
                threading.Thread(target=self._watch, name="steplog-watchdog", daemon=True).start()
            elif due < self._wakes_at:
                self._changed.notify()

    def forget(self) -> None:
        """It is over."""
        self._watched = None

    def _watch(self) -> None:
        while (overdue := self._overdue()) is not None:
            try:
                overdue.roll_back()
            except Exception as error:  # the next one is to be watched all the same
                _log.error("a transaction that nobody ended in its time cannot be rolled back: %s", error)

    def _overdue(self) -> _Watched | None:
        """The next that nobody has ended in its time; None where there is nothing to watch any more."""
        with self._changed:
            while (watched := self._watched) is not None:
                if (left_s := watched.due - time.monotonic()) <= 0:
                    self._watched = None
                    return watched
                self._wakes_at = watched.due
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            self._wakes_at = None
            return None
