"""What ids say about when jobs were created: they are UUIDv7."""

from __future__ import annotations

from datetime import datetime, timedelta

_MARGIN = timedelta(days=1)
"""By how much the clock that made an id may have been behind."""


def oldest_id(since: str | None) -> str:
    """The lowest id that a job created since then can have; "" where that is any."""
    if since is None:
        return ""
    try:
        milliseconds = int((datetime.fromisoformat(since) - _MARGIN).timestamp() * 1000)
    except (ValueError, OverflowError):
        return ""
    digits = f"{max(milliseconds, 0):012x}"
    return f"{digits[:8]}-{digits[8:12]}-0000-0000-000000000000"
