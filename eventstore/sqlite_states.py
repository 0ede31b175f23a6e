"""Stored states in SQLite's tables, each on a connection whose transaction the caller has open."""

from __future__ import annotations

import sqlite3

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, JobNotFound
from steplog.eventstore.inspection import StoredState
from steplog.eventstore.states import ANY_BUT_STORED, decode_state, encode_state

_HEAD_AND_STATE = """
SELECT jobs.version, jobs.hash, stored.version, stored.hash, stored.recorded_at, stored.state, stored.digest
FROM jobs
LEFT JOIN snapshots AS stored
    ON stored.job_id = jobs.job_id AND stored.reducer_version = :reducer_version AND stored.version = (
        SELECT max(s.version) FROM snapshots AS s
        JOIN events AS e ON e.job_id = s.job_id AND e.version = s.version AND e.hash = s.hash
        WHERE s.job_id = :job_id AND s.reducer_version = :reducer_version
          AND s.version <= min(jobs.version, coalesce(:until, jobs.version))
    )
WHERE jobs.job_id = :job_id
"""


def open_job(
    connection: sqlite3.Connection, job_id: str, reducer_version: int, until: int | None
) -> tuple[int, str, StoredState | None]:
    """Version and hash of the head, and the latest stored state up to there that is one of this log."""
    row = connection.execute(
        _HEAD_AND_STATE, {"job_id": job_id, "reducer_version": reducer_version, "until": until}
    ).fetchone()
    if row is None:
        raise JobNotFound(job_id)
    head_version, head_hash, version, hash, recorded_at, text, digest = row
    if not (type(head_version) is int and type(head_hash) is str):
        raise DamagedLog(job_id, 0, "its head is damaged")
    if version is None:
        return head_version, head_hash, None
    stored = decode_state(job_id, reducer_version, Position(version, hash, recorded_at), text, digest)
    if stored is None:
        return open_job(connection, job_id, ANY_BUT_STORED, until)
    return head_version, head_hash, stored


def insert_state(connection: sqlite3.Connection, stored: StoredState) -> None:
    """A state of a log that is not this one, for it went backwards meanwhile, is not kept."""
    at = stored.position
    text, digest = encode_state(stored)
    connection.execute(
        "INSERT INTO snapshots (job_id, reducer_version, version, hash, recorded_at, state, digest)"
        " SELECT job_id, ?, version, hash, recorded_at, ?, ? FROM events WHERE job_id = ? AND version = ? AND hash = ?"
        " ON CONFLICT DO NOTHING",
        (stored.reducer_version, text, digest, stored.job_id, at.version, at.hash),
    )
