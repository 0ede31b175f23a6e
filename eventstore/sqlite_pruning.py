"""Removing the events of ended jobs from a SQLite file; the triggers let go what the table of pruned jobs names."""

from __future__ import annotations

import sqlite3

from steplog.eventstore.chain import Position

_NAME = """
INSERT INTO pruned (job_id, version, hash, pruned_at)
SELECT job_id, version, hash, :now FROM jobs
WHERE job_id = :job_id AND version = :version AND hash = :hash
  AND status IN ('completed', 'cancelled') AND worker_id IS NULL
ON CONFLICT (job_id) DO UPDATE SET version = excluded.version
RETURNING job_id
"""


def prune_job(connection: sqlite3.Connection, job_id: str, at: Position, now: str) -> bool:
    """Whether the job has ended there and its events are gone now."""
    values = {"job_id": job_id, "version": at.version, "hash": at.hash, "now": now}
    if not connection.execute(_NAME, values).fetchall():
        return False
    connection.execute("DELETE FROM events WHERE job_id = ?", (job_id,))
    connection.execute("DELETE FROM snapshots WHERE job_id = ?", (job_id,))
    return True


def pruned_at(connection: sqlite3.Connection, job_id: str) -> Position | None:
    """Where the log of a pruned job ended."""
    row = connection.execute("SELECT version, hash FROM pruned WHERE job_id = ?", (job_id,)).fetchone()
    return Position(*row) if row else None
