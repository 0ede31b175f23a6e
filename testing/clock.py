"""A clock that stands still until it is told to move, so that waits take no time and runs can be repeated."""

from __future__ import annotations

from datetime import datetime
from itertools import count

from steplog.eventstore.clock import later, uuid7

_MICROSECONDS = 1_000_000


class VirtualClock:
    """Time by hand; ids are UUIDv7 of that time, counted, the same in every run."""

    def __init__(self, start: str = "2026-01-01T00:00:00.000000Z") -> None:
        self._start = self._now = start
        self._started_ms = int(datetime.fromisoformat(start).timestamp() * 1000)
        self._passed_us = 0
        self._ids = count(1)

    def now(self) -> str:
        if not self._now:
            self._now = later(self._start, self._passed_us / _MICROSECONDS)
        return self._now

    def monotonic(self) -> float:
        return self._passed_us / _MICROSECONDS

    def new_id(self) -> str:
        unix_ms = self._started_ms + self._passed_us // 1000
        return str(uuid7(unix_ms, next(self._ids).to_bytes(10, "big")))

    def advance(self, seconds: float) -> None:
        """Let time pass, to the microsecond: an instant says no more."""
        self._passed_us += round(seconds * _MICROSECONDS)
        self._now = ""
