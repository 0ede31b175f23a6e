"""Workers of a SQLite file: whether one is known as alive and lives, and which byte it locks."""

from __future__ import annotations

import sqlite3

from steplog.eventstore import sqlite_tables as tables
from steplog.eventstore.errors import WorkerDead
from steplog.eventstore.process_identity import certainly_dead
from steplog.eventstore.record_lock import LockFile
from steplog.eventstore.store import WorkerIdentity


def require_alive(connection: sqlite3.Connection, worker_id: str) -> None:
    """Raise WorkerDead unless the worker is known as alive."""
    worker = tables.find_worker(connection, worker_id)
    if worker is None or worker.state != "alive":
        raise WorkerDead(worker_id)


def byte_for(connection: sqlite3.Connection, worker: WorkerIdentity, at: str) -> int:
    """The byte of the lock file that is the worker's; it is made known if it is not. Raises WorkerDead."""
    row = tables.find_worker(connection, worker.worker_id)
    if row is None:
        return tables.insert_worker(connection, worker, at)
    if row.state != "alive" or row.identity != worker:
        raise WorkerDead(worker.worker_id)
    return row.lock_byte


def lives(locks: LockFile, worker: tables.WorkerRow) -> bool:
    """Whether it has its byte. What was forked from its process behind Python's back may have that, and outlive it."""
    return locks.is_locked(worker.lock_byte) and not certainly_dead(worker.identity)
