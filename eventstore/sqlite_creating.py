"""New jobs inside an open transaction of SQLite: the key, the head and the first events, or what stands in the way."""

from __future__ import annotations

import sqlite3

from steplog.eventstore import sqlite_data_keys as data_keys
from steplog.eventstore import sqlite_log as log
from steplog.eventstore import sqlite_tables as tables
from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.errors import KeyConflict, StoreError, WorkerDead
from steplog.eventstore.sqlite_workers import require_alive
from steplog.eventstore.store import Head, NewJob


def created_or_why_not(connection: sqlite3.Connection, job: NewJob) -> str | StoreError:
    """The id of the job, or of the one that has its key; or KeyConflict, WorkerDead."""
    try:
        return create(connection, job)
    except (KeyConflict, WorkerDead) as refused:
        return refused


def create(connection: sqlite3.Connection, job: NewJob) -> str:
    """The same, raised."""
    key = job.columns.key
    if key is not None and (holder := tables.holder_of_key(connection, job.columns.workflow, key)):
        if holder.input_hash != job.input_hash:
            raise KeyConflict(job.columns.workflow, key, holder.job_id)
        return holder.job_id
    if tables.find_head(connection, job.job_id):
        _require_same(connection, job)
        return job.job_id
    if job.claim and job.claim.worker_id:
        require_alive(connection, job.claim.worker_id)
    _insert(connection, job)
    return job.job_id


def _insert(connection: sqlite3.Connection, job: NewJob) -> None:
    end = end_of(job.events, Position())
    unowned = Head(job.job_id, end.version, end.hash, end.recorded_at, job.columns, job.epoch)
    tables.insert_head(connection, log.owned(unowned, job.claim))
    tables.insert_events(connection, job.events)
    if job.data_key is not None:
        data_keys.insert(connection, job.job_id, job.data_key)
    if job.columns.key is not None:
        holder = tables.KeyHolder(job.job_id, job.input_hash)
        tables.insert_key(connection, job.columns.workflow, job.columns.key, holder)


def _require_same(connection: sqlite3.Connection, job: NewJob) -> None:
    stored = tables.marks_between(connection, job.job_id, 1, len(job.events))
    if [event.event_id for event in job.events] != [stored[version].event_id for version in sorted(stored)]:
        raise StoreError(f"job {job.job_id} exists already, with other events")
