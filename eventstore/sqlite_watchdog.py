"""Ends a transaction that nobody has ended in its time: until then nobody else can write to the file.

Whoever was to end it may have blocked its event loop, or closed it. PostgreSQL's server does the same with a timeout.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

PATIENCE_S = 1.0
"""How much longer than its time a transaction is left alone: as a rule its attempt ends it."""


class _Watched(NamedTuple):
    roll_back: Callable[[], None]
    due: float


class Watchdog:
    """Of one store, which has one such transaction at a time. Its thread sleeps until one is due, or there is none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: _Watched | None = None
        self._sleeps = False

    def watch(self, roll_back: Callable[[], None], limit_s: float) -> None:
        """Call that once the time is over, unless `forget` was called before."""
        with self._lock:
            self._watched = _Watched(roll_back, time.monotonic() + limit_s + PATIENCE_S)
            if not self._sleeps:
                self._sleeps = True
                threading.Thread(target=self._watch, name="steplog-watchdog", daemon=True).start()

    def forget(self) -> None:
        """It is over."""
        self._watched = None

    def _watch(self) -> None:
        while (watched := self._next()) is not None:
            if (left_s := watched.due - time.monotonic()) > 0:
                time.sleep(left_s)
            elif self._watched is watched:
                self._watched = None
                watched.roll_back()

    def _next(self) -> _Watched | None:
        with self._lock:
            self._sleeps = self._watched is not None
            return self._watched
