"""Time and ids: the one injected source of both.

Instants are RFC 3339 UTC strings with six decimals (`2026-11-23T15:54:04.123456Z`): they sort as text and stand in
the log, the state and every answer in the same form.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where time and ids come from."""

    def now(self) -> str:
        """The present instant, estimated in the store's time."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for intervals."""
        ...

    def new_id(self) -> str:
        """A fresh UUIDv7, in its canonical text form."""
        ...


class SystemClock:
    """The machine's clock, shifted by `offset_s` to agree with the store's."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def now(self) -> str:
        return instant(time.time() + self.offset_s)

    def monotonic(self) -> float:
        return time.monotonic()

    def new_id(self) -> str:
        return str(uuid7(time.time_ns() // 1_000_000, os.urandom(10)))


def uuid7(unix_ms: int, random: bytes) -> uuid.UUID:
    """A version 7 UUID (RFC 9562) of a time in milliseconds and ten random bytes."""
    tail = int.from_bytes(random, "big")
    value = (unix_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (tail >> 68) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return uuid.UUID(int=value)


def instant(unix_s: float) -> str:
    """The RFC 3339 form of seconds since 1970."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def later(at: str, seconds: float) -> str:
    """The instant `seconds` after `at`, or the last one there is."""
    try:
        moved = datetime.fromisoformat(at) + timedelta(seconds=seconds)
    except OverflowError:
        return "9999-12-31T23:59:59.999999Z"
    return moved.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_between(start: str, end: str) -> float:
    """Seconds from one instant to another, negative if `end` comes first."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
