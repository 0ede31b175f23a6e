"""The feed of a SQLite file: commit order is row order, so a position is a cursor."""

from __future__ import annotations

import sqlite3

from steplog.eventstore.errors import FeedMoved
from steplog.eventstore.feed import FeedEntry, FeedPage, as_cursor, parts_of

_PAGE = """
SELECT job_id, version, type, recorded_at, position, hash FROM events
WHERE position > ? ORDER BY position LIMIT ?
"""

_LAST = "SELECT position, hash FROM events ORDER BY position DESC LIMIT 1"


def read_feed(connection: sqlite3.Connection, after: str | None, limit: int) -> FeedPage:
    """Entries behind a cursor. Raises FeedMoved, CursorRefused."""
    position, hash = _place(connection, after)
    rows = connection.execute(_PAGE, (position, max(limit, 1))).fetchall()
    if rows:
        *_, position, hash = rows[-1]
    return FeedPage([FeedEntry(*row[:4]) for row in rows], as_cursor("sqlite", position, hash))


def feed_end(connection: sqlite3.Connection) -> str:
    """The cursor behind the newest row."""
    return as_cursor("sqlite", *(connection.execute(_LAST).fetchone() or (0, "")))


def _place(connection: sqlite3.Connection, after: str | None) -> tuple[int, str]:
    """Position and hash of the last event seen, which must be the one that is stored there, unless it was pruned."""
    if after is None:
        return 0, ""
    position, hash = parts_of(after, "sqlite", int, str)
    stored = connection.execute("SELECT hash FROM events WHERE position = ?", (position,)).fetchone()
    is_here = stored == (hash,) if stored else position <= _newest(connection)
    if not is_here:
        raise FeedMoved
    return position, hash


def _newest(connection: sqlite3.Connection) -> int:
    """The highest position ever given out."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0
