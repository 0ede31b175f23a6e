"""Time and ids: the one injected source of both.

Instants are RFC 3339 UTC strings with six decimals (`2026-11-23T15:54:04.123456Z`): they sort as text and stand in
the log, the state and every answer in the same form.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import lru_cache
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
    """The machine's clock."""

    def now(self) -> str:
        return instant(time.time())

    def monotonic(self) -> float:
        return time.monotonic()

    def new_id(self) -> str:
        return f"{_millisecond(time.time_ns() // 1_000_000)}-{_random_tail()}"


def uuid7(unix_ms: int, random: bytes) -> uuid.UUID:
    """A version 7 UUID of a time in milliseconds and ten random bytes, laid out as RFC 9562 says."""
    tail = int.from_bytes(random, "big")
    time_and_version = (unix_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76
    return uuid.UUID(int=time_and_version | (tail >> 68) << 64 | 0b10 << 62 | tail & (1 << 62) - 1)


_random_tails: list[str] = []
"""What follows the time in a version 7 UUID, drawn together: a system call gives the interpreter away, and every event
needs an id."""

os.register_at_fork(after_in_child=_random_tails.clear)


def _random_tail() -> str:
    while True:
        try:
            return _random_tails.pop()  # one bytecode: no two threads get the same
        except IndexError:
            drawn = os.urandom(10 * 256).hex()
            _random_tails.extend(_tail(drawn[start : start + 20]) for start in range(0, len(drawn), 20))


@lru_cache(maxsize=16)
def _millisecond(unix_ms: int) -> str:
    digits = f"{unix_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _tail(digits: str) -> str:
    variant = "89ab"[int(digits[3], 16) & 0b11]
    return f"7{digits[:3]}-{variant}{digits[4:7]}-{digits[7:19]}"


def instant(unix_s: float) -> str:
    """The RFC 3339 form of seconds since 1970."""
    second, microsecond = divmod(round(unix_s * 1_000_000), 1_000_000)
    return f"{_second(second)}.{microsecond:06d}Z"


@lru_cache(maxsize=16)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[:-6]


def _in_utc(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='microseconds')[:-6]}Z"


def later(at: str, seconds: float) -> str:
    """The instant `seconds` after `at`, or the last one there is."""
    try:
        moved = datetime.fromisoformat(at) + timedelta(seconds=seconds)
    except OverflowError:
        return "9999-12-31T23:59:59.999999Z"
    return _in_utc(moved.astimezone(UTC))


def seconds_between(start: str, end: str) -> float:
    """Seconds from one instant to another, negative if `end` comes first."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
