"""Instants and durations as people read and write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from steplog.eventstore.clock import later, seconds_between

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def duration(seconds: float) -> str:
    """`12ms`, `8.1s`, `41s`, `1m04s`, `2h05m`, `3d07h`."""
    if seconds < 0.1:
        return f"{max(seconds, 0) * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def since(start: str, end: str) -> str:
    """The duration between two instants."""
    return duration(seconds_between(start, end))


def relative(instant: str, now: str) -> str:
    """`3m04s ago`, or `in 4.0s`."""
    seconds = seconds_between(instant, now)
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def moment_of(text: str, now: str) -> str:
    """The instant to come that a person named: `in 2h`, or as `instant_of` takes it. Raises ValueError."""
    ahead = _DURATION.fullmatch(text.strip().removeprefix("in ").strip())
    return later(now, float(ahead[1]) * _UNITS[ahead[2]]) if ahead else instant_of(text, now)


def instant_of(text: str, now: str) -> str:
    """The instant that a person named: `2h` ago, an ISO 8601 time (local unless it has a zone). Raises ValueError."""
    ago = _DURATION.fullmatch(text.strip().removesuffix("ago").rstrip())
    if ago:
        return later(now, -float(ago[1]) * _UNITS[ago[2]])
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 2h, 30m, 1d or 2026-01-31T12:00:00Z") from None
    return given.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
