"""One job's log and head inside an open transaction of SQLite: judge and store what is appended, read what is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from steplog.eventstore import sqlite_tables as tables
from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event, NewEvent
from steplog.eventstore.rows import as_row
from steplog.eventstore.store import Answer, Append, Claim, Code, Head, HeadColumns
from steplog.eventstore.stream import judge, tail_of

_VERSION_MAX = (1 << 63) - 1


def append(connection: sqlite3.Connection, batch: Sequence[Append]) -> list[Answer]:
    """Judge owners' appends, one a job, and put in what is accepted."""
    answers: list[Answer] = []
    accepted: list[Append] = []
    for item in batch:
        end = tables.find_end(connection, item.job_id)
        if end is None:
            answers.append(Answer(item.job_id, Code.MISSING, 0))
            continue
        first, last = item.expected.version, item.expected.version + len(item.events)
        code = judge(item, end, partial(tables.marks_between, connection, item.job_id, first, last))
        if code is Code.STORED and end.version == first:
            accepted.append(item)
            answers.append(Answer(item.job_id, code, last))
        else:
            answers.append(Answer(item.job_id, code, end.version))
    tables.insert_events(connection, [event for item in accepted for event in item.events])
    tables.move_heads(connection, accepted)
    return answers


def store(connection: sqlite3.Connection, head: Head, events: Sequence[NewEvent], columns: HeadColumns) -> Head:
    """Put events and the head that follows from them into the open transaction."""
    end = end_of(events, head.position)
    moved = replace(head, version=end.version, hash=end.hash, recorded_at=end.recorded_at, columns=columns)
    tables.insert_events(connection, events)
    tables.update_head(connection, moved)
    return moved


def owned(head: Head, claim: Claim | None) -> Head:
    """The head under a claim, or without an owner; an epoch never falls."""
    if claim is None:
        return replace(head, claim_id=None, worker_id=None)
    return replace(head, epoch=claim.epoch, claim_id=claim.claim_id, worker_id=claim.worker_id or None)


def tail(connection: sqlite3.Connection, head: Head, known: Position) -> list[Event]:
    """Everything behind `known`, up to the head."""
    return tail_of(head, tables.rows_after(connection, head.job_id, known.version, _VERSION_MAX), known)


def position_at(connection: sqlite3.Connection, job_id: str, version: int) -> Position:
    """Where the log stood at that version. Raises DamagedLog where there is none."""
    if version <= 0:
        return Position()
    rows = tables.rows_after(connection, job_id, version - 1, version)
    if not rows:
        raise DamagedLog(job_id, version, "missing")
    row = as_row(rows[0])
    return Position(version, row.hash, row.recorded_at)
