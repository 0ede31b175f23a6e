"""The feed: what was stored in all jobs, in about the order it was stored in. For views and projections; nothing that
must be right rests on its order.

A reader goes on from a cursor, which is opaque: where a log ends differs from store to store. It sees every event once,
also those of transactions that took long. Where the log behind a cursor is not the one in front of it (restored from a
backup, failed over), the reader is told, sweeps over all jobs, and goes on from the feed's end.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

import orjson

from steplog.eventstore.errors import CursorRefused

PAGE_ENTRIES = 500
"""How many entries one call fetches unless it says."""


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """That a job has an event of that version; what it says is read from the job's log, where it is checked."""

    job_id: str
    version: int
    type: str
    recorded_at: str


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A stretch of the feed, and the cursor to go on from. A page without entries is the feed's end for now."""

    entries: list[FeedEntry]
    cursor: str


def as_cursor(kind: str, *parts: object) -> str:
    """The opaque text of a place in a feed of that kind."""
    return urlsafe_b64encode(orjson.dumps([kind, *parts])).decode().rstrip("=")


def parts_of(cursor: str, kind: str, *types: type) -> list[Any]:
    """What `as_cursor` was given. Raises CursorRefused where that was not of this kind, or not of these types."""
    try:
        found = orjson.loads(urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except ValueError:
        raise CursorRefused(cursor) from None
    if not isinstance(found, list) or [type(part) for part in found] != [str, *types] or found[0] != kind:
        raise CursorRefused(cursor)
    return found[1:]
