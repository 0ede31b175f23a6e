"""The feed of a PostgreSQL schema: a cursor is a snapshot of the database's transactions.

What the earlier snapshot does not see and the later one does is exactly what was committed between them, whatever the
order of the transactions' ids: a slow transaction holds up no reader and is missed by none. Ids mean nothing on another
server, on another timeline or in a table that was restored, so a cursor names all three.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from steplog.eventstore.errors import CursorRefused, FeedMoved, JobNotFound
from steplog.eventstore.feed import FeedEntry, FeedPage, as_cursor, parts_of
from steplog.eventstore.postgres_connections import Run
from steplog.eventstore.postgres_tables import job_uuid

_NOW = """
select pg_control_system.system_identifier || '/' || {s}.events_table(),
       case when pg_is_in_recovery() then '' else left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) end,
       pg_current_snapshot()::text
from pg_control_system()
"""

# Transactions that the earlier snapshot saw under way are looked up one by one; one that stays open for hours costs
# nothing. Each half is put in order by itself: both at once would be read to their ends for every page.
_PAGE = """
select job_id::text, version, type, {s}.instant(recorded_at), xid::text from (
    (
        select * from {s}.events
        where xid = any (array(select pg_snapshot_xip(%(seen)s::pg_snapshot)))
          and pg_visible_in_snapshot(xid, %(until)s::pg_snapshot)
          and (xid, job_id, version) > (%(xid)s::xid8, %(job_id)s::uuid, %(version)s)
        order by xid, job_id, version limit %(limit)s
    )
    union all (
        select * from {s}.events
        where xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
          and xid < pg_snapshot_xmax(%(until)s::pg_snapshot)
          and pg_visible_in_snapshot(xid, %(until)s::pg_snapshot)
          and (xid, job_id, version) > (%(xid)s::xid8, %(job_id)s::uuid, %(version)s)
        order by xid, job_id, version limit %(limit)s
    )
) as entry
order by entry.xid, entry.job_id, entry.version limit %(limit)s
"""

_NOTHING = "3:3:"
"""A snapshot from before the first transaction of any database."""

_SNAPSHOT = re.compile(r"\d+:\d+:[\d,]*")

_NIL = "00000000-0000-0000-0000-000000000000"


class _Cluster(NamedTuple):
    system: str
    """The server's identifier and the table's, which is another one in what a dump was restored to."""
    timeline: str


class _Place(NamedTuple):
    """Everything in `seen` was read; of what `until` sees beyond it, everything up to an event."""

    seen: str
    until: str = ""
    xid: str = "0"
    job_id: str = _NIL
    version: int = 0


def read_feed(run: Run, after: str | None, limit: int) -> FeedPage:
    """Entries behind a cursor. Raises FeedMoved, CursorRefused."""
    cluster, now = _present(run)
    place = _Place(_NOTHING) if after is None else _place(after, cluster)
    if not place.until:
        place = place._replace(until=now)
    if place.seen == place.until:
        return FeedPage([], as_cursor("postgres", *cluster, *place._replace(until="")))
    limit = max(limit, 1)
    rows = run(_PAGE, {**place._asdict(), "limit": limit})
    if not rows and place.until != now:
        # The page before ended where its snapshot does: what was stored since then follows.
        return read_feed(run, as_cursor("postgres", *cluster, *_Place(place.until)), limit)
    if len(rows) < limit:
        place = _Place(place.until)
    else:
        job_id, version, _, _, xid = rows[-1]
        place = _Place(place.seen, place.until, xid, job_id, version)
    return FeedPage([FeedEntry(*row[:4]) for row in rows], as_cursor("postgres", *cluster, *place))


def feed_end(run: Run) -> str:
    """The cursor behind everything that is committed by now."""
    cluster, now = _present(run)
    return as_cursor("postgres", *cluster, *_Place(now))


def _present(run: Run) -> tuple[_Cluster, str]:
    """The server that answers, and its transactions now."""
    ((system, timeline, snapshot),) = run(_NOW, [])
    return _Cluster(system, timeline), snapshot


def _place(cursor: str, cluster: _Cluster) -> _Place:
    system, timeline, *parts = parts_of(cursor, "postgres", str, str, str, str, str, str, int)
    place = _Place(*parts)
    snapshots = [place.seen, place.until] if place.until else [place.seen]
    if not all(map(_SNAPSHOT.fullmatch, snapshots)) or not place.xid.isdecimal() or not _is_job_id(place.job_id):
        raise CursorRefused(cursor)
    if (system, timeline) != cluster:
        raise FeedMoved
    return place


def _is_job_id(text: str) -> bool:
    try:
        return job_uuid(text) == text
    except JobNotFound:
        return False
