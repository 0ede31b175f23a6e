"""What a worker may claim, in SQLite: found and claimed inside a transaction of the caller's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import orjson

from steplog.eventstore import sqlite_log as log
from steplog.eventstore import sqlite_tables as tables
from steplog.eventstore.clock import later
from steplog.eventstore.errors import JobNotFound
from steplog.eventstore.store import Answer, Append, BatchCount, Claim, Code, Head, Slots, SlotWanted, Work, WorkQuery
from steplog.eventstore.stream import batch_counts, judge_claim

_PRIORITY = """
SELECT priority FROM jobs
WHERE worker_id IS NULL AND wake_at IS NOT NULL AND workflow = :workflow AND priority < :below
ORDER BY priority DESC LIMIT 1
"""

_DUE = """
SELECT job_id, version, tags FROM jobs
WHERE worker_id IS NULL AND wake_at IS NOT NULL AND workflow = :workflow AND priority = :priority AND wake_at <= :now
ORDER BY wake_at
"""

_SOONEST = """
SELECT min(wake_at) FROM jobs
WHERE worker_id IS NULL AND wake_at IS NOT NULL AND workflow = :workflow AND priority = :priority AND wake_at > :now
"""

_NEXT_OWNER = "SELECT worker_id FROM jobs WHERE worker_id > ? ORDER BY worker_id LIMIT 1"

_SLOTS_HELD = """
SELECT slot FROM slots JOIN jobs ON jobs.job_id = slots.job_id
WHERE limit_name = ? AND slot < ? AND slots.job_id <> ? AND jobs.worker_id IS NOT NULL
"""

_SLOTS_BEFORE = "SELECT slot FROM slots WHERE limit_name = ? AND slot < ? AND job_id = ?"

_RATE_SLOTS_USED = "SELECT slot FROM slots WHERE limit_name = ? AND slot < ? AND taken_at > ?"

_TAKE_SLOT = """
INSERT INTO slots (limit_name, slot, job_id, taken_at) VALUES (?, ?, ?, ?)
ON CONFLICT (limit_name, slot) DO UPDATE SET job_id = excluded.job_id, taken_at = excluded.taken_at
"""

_PRIORITY_MAX = 1 << 62


def look(connection: sqlite3.Connection, query: WorkQuery, now: str, has_died: Callable[[str], bool]) -> Work:
    """What could be claimed; `has_died` says it of a job's owner."""
    due: list[str] = []
    soonest: list[str] = []
    for workflow in query.workflows:
        found: list[str] = []
        for priority in _priorities(connection, workflow):
            if len(found) >= query.limit:
                break
            wanted = {"workflow": workflow, "priority": priority, "now": now}
            for job_id, version, tags in connection.execute(_DUE, wanted):
                if len(found) >= query.limit:
                    break
                held_up = bool(query.used_up) and query.is_held_up(workflow, orjson.loads(tags))
                if query.refused.get(job_id) != version and not held_up:
                    found.append(job_id)
            ((next_at,),) = connection.execute(_SOONEST, wanted)
            soonest += [next_at] if next_at is not None else []
        due += found
    heads = (tables.get_head(connection, job_id) for job_id in due)
    return Work(now, list(heads), _left_behind(connection, query, has_died), min(soonest, default=None))


def _priorities(connection: sqlite3.Connection, workflow: str) -> Iterator[int]:
    """Those that jobs without an owner have, the highest first, each found by one step down the index."""
    below = _PRIORITY_MAX
    while (found := connection.execute(_PRIORITY, {"workflow": workflow, "below": below}).fetchone()) is not None:
        (below,) = found
        yield below


def _left_behind(connection: sqlite3.Connection, query: WorkQuery, has_died: Callable[[str], bool]) -> list[Head]:
    left: list[Head] = []
    for owner in _owners(connection):
        if has_died(owner):
            left += [tables.get_head(connection, job_id) for job_id in tables.jobs_of_worker(connection, owner)]
    wanted = [head for head in left if head.columns.workflow in query.workflows]
    return [head for head in wanted if query.refused.get(head.job_id) != head.version][: query.limit]


def _owners(connection: sqlite3.Connection) -> Iterator[str]:
    """Who owns jobs, each found by one step down the index."""
    last = ""
    while (found := connection.execute(_NEXT_OWNER, (last,)).fetchone()) is not None:
        (last,) = found
        yield last


def claim_many(connection: sqlite3.Connection, batch: Sequence[Append], slots: Slots, now: str) -> list[Answer]:
    return [_claim(connection, item, slots.get(item.job_id, ()), now) for item in batch]


def _claim(connection: sqlite3.Connection, item: Append, slots: Sequence[SlotWanted], now: str) -> Answer:
    try:
        head = tables.get_head(connection, item.job_id)
    except JobNotFound:
        return Answer(item.job_id, Code.MISSING, 0)
    first, last = item.expected.version, item.expected.version + len(item.events)
    code = judge_claim(item, head, partial(tables.marks_between, connection, item.job_id, first, last))
    if code is Code.STORED and head.version == first:
        for wanted in slots:
            if not _take_slot(connection, wanted, item.job_id, now):
                return Answer(item.job_id, Code.LIMITED, first, wanted.limit)
        log.store(connection, log.owned(head, item.claim), item.events, item.columns)
        return Answer(item.job_id, code, last)
    return Answer(item.job_id, code, head.version)


def _take_slot(connection: sqlite3.Connection, wanted: SlotWanted, job_id: str, now: str) -> bool:
    """Whether there was one; the one that the job has is its own, also from before it was given back."""
    before: list[tuple[int]] = []
    if wanted.period_s is not None:
        rows = connection.execute(_RATE_SLOTS_USED, (wanted.limit, wanted.slots, later(now, -wanted.period_s)))
    else:
        rows = connection.execute(_SLOTS_HELD, (wanted.limit, wanted.slots, job_id))
        before = connection.execute(_SLOTS_BEFORE, (wanted.limit, wanted.slots, job_id)).fetchall()
    used = {slot for (slot,) in rows}
    wished = (*(slot for (slot,) in before), *range(wanted.slots))
    slot = next((slot for slot in wished if slot not in used), None)
    if slot is not None:
        connection.execute(_TAKE_SLOT, (wanted.limit, slot, job_id, now))
    return slot is not None


def abandon(connection: sqlite3.Connection, job_id: str, claim: Claim) -> None:
    connection.execute(
        "UPDATE jobs SET worker_id = NULL, claim_id = NULL WHERE job_id = ? AND epoch = ? AND claim_id = ?",
        (job_id, claim.epoch, claim.claim_id),
    )


def owned_counts(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(
        connection.execute("SELECT worker_id, count(*) FROM jobs WHERE worker_id IS NOT NULL GROUP BY worker_id")
    )


def longest_ready(connection: sqlite3.Connection, limit: int, now: str) -> list[Head]:
    found = connection.execute(
        "SELECT job_id FROM jobs WHERE worker_id IS NULL AND wake_at IS NOT NULL AND wake_at <= ?"
        " ORDER BY wake_at LIMIT ?",
        (now, max(limit, 0)),
    ).fetchall()
    return [tables.get_head(connection, job_id) for (job_id,) in found]


def batches(connection: sqlite3.Connection, batch_id: str | None, limit: int) -> list[BatchCount]:
    """Newest first, as their ids are ordered."""
    names = [batch_id] if batch_id is not None else _newest(connection, limit)
    rows = []
    for name in names:
        rows += connection.execute(
            "SELECT batch_id, min(created_at), status, count(*) FROM jobs WHERE batch_id = ? GROUP BY batch_id, status",
            (name,),
        ).fetchall()
    return batch_counts(rows)


def _newest(connection: sqlite3.Connection, limit: int) -> list[str]:
    found = connection.execute(
        "SELECT DISTINCT batch_id FROM jobs WHERE batch_id IS NOT NULL ORDER BY batch_id DESC LIMIT ?", (max(limit, 0),)
    )
    return [batch_id for (batch_id,) in found]
