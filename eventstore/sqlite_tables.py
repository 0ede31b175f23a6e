"""One SQLite table each: the statements on it, and its rows as the store's values. No transactions, no rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson

from steplog.eventstore.chain import end_of
from steplog.eventstore.errors import DamagedLog, JobNotFound
from steplog.eventstore.events import NewEvent
from steplog.eventstore.finding import oldest_id
from steplog.eventstore.heads import HEAD_COLUMNS, counted
from steplog.eventstore.rows import StoredRow
from steplog.eventstore.store import Append, Head, HeadColumns, HeadQuery, Worker, WorkerIdentity
from steplog.eventstore.stream import Mark

# --- jobs ------------------------------------------------------------------------------------------------------------

_HEAD = """
SELECT job_id, version, hash, recorded_at, epoch, claim_id, worker_id, workflow, status, created_at, updated_at, mode,
       phase, last_error, failed_sub_step, wake_at, ended_at, done, total, key, tags, priority, batch_id
FROM jobs WHERE job_id = ?
"""

_HEAD_AND_OWNER = """
SELECT job_id, version, hash, recorded_at, epoch, claim_id, jobs.worker_id, workflow, status, created_at, updated_at,
       mode, phase, last_error, failed_sub_step, wake_at, jobs.ended_at, done, total, key, tags, priority, batch_id,
       workers.worker_id, host, pid, boot_id, pid_namespace, process_started, state, started_at
FROM jobs LEFT JOIN workers ON workers.worker_id = jobs.worker_id WHERE job_id = ?
"""

# SQLite plans a statement before it knows its parameters, so that a filter which may be off finds no index. Each of
# these is led by one that is on.
_HEADS = """
SELECT job_id, version, hash, recorded_at, epoch, claim_id, worker_id, workflow, status, created_at, updated_at, mode,
       phase, last_error, failed_sub_step, wake_at, ended_at, done, total, key, tags, priority, batch_id
FROM jobs
WHERE {lead} AND job_id < :before AND job_id >= :oldest
  AND (:workflow IS NULL OR workflow = :workflow)
  AND (:status IS NULL OR status = :status)
  AND (:phase IS NULL OR phase = :phase)
  AND (:key IS NULL OR key = :key)
  AND (:since IS NULL OR created_at >= :since)
  AND (:failed_sub_step IS NULL OR failed_sub_step = :failed_sub_step)
  AND (:batch_id IS NULL OR batch_id = :batch_id)
  AND NOT EXISTS (
      SELECT 1 FROM json_each(:tags) AS wanted
      WHERE NOT EXISTS (
          SELECT 1 FROM json_each(jobs.tags) AS has WHERE has.key = wanted.key AND has.value = wanted.value
      )
  )
ORDER BY job_id DESC LIMIT :limit
"""

_LEADS = {
    "key": _HEADS.format(lead="key = :key"),
    "failed_sub_step": _HEADS.format(lead="failed_sub_step = :failed_sub_step"),
    "batch_id": _HEADS.format(lead="batch_id = :batch_id"),
    "status": _HEADS.format(lead="status = :status"),
    "workflow": _HEADS.format(lead="workflow = :workflow"),
}
"""By filter, those that leave the fewest jobs first."""
_ALL_HEADS = _HEADS.format(lead="true")
_BEHIND_ALL_IDS = "~"

_INDEXED_CHARS = 4

_ENDING_IN = """
SELECT job_id FROM jobs
WHERE substr(job_id, -4) = substr(:suffix, -4) AND substr(job_id, -length(:suffix)) = :suffix
ORDER BY job_id DESC LIMIT :limit
"""

_ENDING_IN_LITTLE = """
SELECT job_id FROM jobs WHERE substr(job_id, -length(:suffix)) = :suffix OR :suffix = ''
ORDER BY job_id DESC LIMIT :limit
"""

_INSERT_HEAD = """
INSERT INTO jobs (job_id, version, hash, recorded_at, epoch, claim_id, worker_id, workflow, status, created_at,
                  updated_at, mode, phase, last_error, failed_sub_step, wake_at, ended_at, done, total, key, tags,
                  priority, batch_id)
VALUES (:job_id, :version, :hash, :recorded_at, :epoch, :claim_id, :worker_id, :workflow, :status, :created_at,
        :updated_at, :mode, :phase, :last_error, :failed_sub_step, :wake_at, :ended_at, :done, :total, :key, :tags,
        :priority, :batch_id)
"""

_UPDATE_HEAD = """
UPDATE jobs
SET version = :version, hash = :hash, recorded_at = :recorded_at, epoch = :epoch, claim_id = :claim_id,
    worker_id = :worker_id, workflow = :workflow, status = :status, created_at = :created_at, updated_at = :updated_at,
    mode = :mode, phase = :phase, last_error = :last_error, failed_sub_step = :failed_sub_step, wake_at = :wake_at,
    ended_at = :ended_at, done = :done, total = :total, key = :key, tags = :tags, priority = :priority,
    batch_id = :batch_id
WHERE job_id = :job_id
"""

_MOVE_HEAD = """
UPDATE jobs
SET version = ?, hash = ?, recorded_at = ?, claim_id = iif(?, NULL, claim_id), worker_id = iif(?, NULL, worker_id),
    workflow = ?, status = ?, created_at = ?, updated_at = ?, mode = ?, phase = ?, last_error = ?, failed_sub_step = ?,
    wake_at = ?, ended_at = ?, done = ?, total = ?, key = ?, tags = ?, priority = ?, batch_id = ?
WHERE job_id = ?
"""


def find_head(connection: sqlite3.Connection, job_id: str) -> Head | None:
    """The job's row, if there is one."""
    row = connection.execute(_HEAD, (job_id,)).fetchone()
    return _head(row) if row else None


class LogEnd(NamedTuple):
    """Where a job's log ends and who owns it."""

    version: int
    hash: str
    epoch: int
    claim_id: str | None


def find_end(connection: sqlite3.Connection, job_id: str) -> LogEnd | None:
    """What of the job's row judges an append, if there is one. Raises DamagedLog."""
    row = connection.execute("SELECT version, hash, epoch, claim_id FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        return None
    end = LogEnd(*row)
    if not (type(end.version) is int and type(end.epoch) is int and type(end.hash) is str):
        raise DamagedLog(job_id, 0, "its head is damaged")
    return end


def get_head(connection: sqlite3.Connection, job_id: str) -> Head:
    """The job's row. Raises JobNotFound."""
    head = find_head(connection, job_id)
    if head is None:
        raise JobNotFound(job_id)
    return head


def get_heads(connection: sqlite3.Connection, job_ids: Sequence[str]) -> list[Head]:
    """The rows of those that are there."""
    return [head for job_id in job_ids if (head := find_head(connection, job_id))]


def get_head_and_owner(connection: sqlite3.Connection, job_id: str) -> tuple[Head, Worker | None]:
    """The job's row and its owner's. Raises JobNotFound."""
    row = connection.execute(_HEAD_AND_OWNER, (job_id,)).fetchone()
    if row is None:
        raise JobNotFound(job_id)
    of_job, of_owner = row[:HEAD_COLUMNS], row[HEAD_COLUMNS:]
    return _head(of_job), None if of_owner[0] is None else _worker(of_owner)


def list_heads(connection: sqlite3.Connection, query: HeadQuery) -> list[Head]:
    """Rows that match, newest first: ids are UUIDv7, so their order is that of creation."""
    wanted = {
        "before": query.before or _BEHIND_ALL_IDS,
        "oldest": oldest_id(query.since),
        "workflow": query.workflow,
        "status": query.status,
        "phase": query.phase,
        "key": query.key,
        "since": query.since,
        "failed_sub_step": query.failed_sub_step,
        "batch_id": query.batch_id,
        "tags": _json(query.tags),
        "limit": max(query.limit, 0),
    }
    statement = next((_LEADS[name] for name in _LEADS if wanted[name] is not None), _ALL_HEADS)
    return [_head(row) for row in connection.execute(statement, wanted)]


def insert_head(connection: sqlite3.Connection, head: Head) -> None:
    connection.execute(_INSERT_HEAD, _head_parameters(head))


def update_head(connection: sqlite3.Connection, head: Head) -> None:
    connection.execute(_UPDATE_HEAD, _head_parameters(head))


def move_heads(connection: sqlite3.Connection, appended: Sequence[Append]) -> None:
    """Let heads follow their owners' appends."""
    connection.executemany(_MOVE_HEAD, [_moved(item) for item in appended])


def _moved(item: Append) -> tuple[Any, ...]:
    end, now = end_of(item.events, item.expected), item.columns
    return (
        end.version,
        end.hash,
        end.recorded_at,
        item.release,
        item.release,
        now.workflow,
        now.status,
        now.created_at,
        now.updated_at,
        now.mode,
        now.phase,
        now.last_error,
        now.failed_sub_step,
        now.wake_at,
        now.ended_at,
        now.done,
        now.total,
        now.key,
        _json(now.tags),
        now.priority,
        now.batch_id,
        item.job_id,
    )


def count_jobs(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """How many jobs there are, by workflow and status."""
    return counted(connection.execute("SELECT workflow, status, count(*) FROM jobs GROUP BY 1, 2"))


def job_ids_ending_in(connection: sqlite3.Connection, suffix: str, limit: int) -> list[str]:
    found = connection.execute(
        _ENDING_IN if len(suffix) >= _INDEXED_CHARS else _ENDING_IN_LITTLE,
        {"suffix": suffix, "limit": max(limit, 0)},
    )
    return [job_id for (job_id,) in found]


def jobs_of_worker(connection: sqlite3.Connection, worker_id: str) -> dict[str, tuple[int, int]]:
    """Version and epoch by job id."""
    owned = connection.execute("SELECT job_id, version, epoch FROM jobs WHERE worker_id = ?", (worker_id,))
    return {job_id: (version, epoch) for job_id, version, epoch in owned}


def _head(row: Sequence[Any]) -> Head:
    job_id, version, hash, recorded_at, epoch, claim_id, worker_id, *columns, tags, priority, batch_id = row
    try:
        tags = orjson.loads(tags)
    except ValueError as error:
        raise DamagedLog(str(job_id), 0, f"its head has tags that are no JSON: {error}") from error
    if not (type(version) is int and type(epoch) is int and type(hash) is str and type(tags) is dict):
        raise DamagedLog(str(job_id), 0, "its head is damaged")
    shown = HeadColumns._make([*columns, tags, priority, batch_id])
    return Head(job_id, version, hash, recorded_at, shown, epoch, claim_id, worker_id)


def _head_parameters(head: Head) -> dict[str, Any]:
    return {
        **head.columns._asdict(),
        "job_id": head.job_id,
        "version": head.version,
        "hash": head.hash,
        "recorded_at": head.recorded_at,
        "epoch": head.epoch,
        "claim_id": head.claim_id,
        "worker_id": head.worker_id,
        "tags": _json(head.columns.tags),
    }


def rewrite_newest_head(connection: sqlite3.Connection) -> None:
    """Write a row anew as it is. SQLite leaves out an update to the same values, hence there and back."""
    connection.execute("UPDATE jobs SET version = version + 1 WHERE job_id = (SELECT max(job_id) FROM jobs)")
    connection.execute("UPDATE jobs SET version = version - 1 WHERE job_id = (SELECT max(job_id) FROM jobs)")


# --- events ----------------------------------------------------------------------------------------------------------


def insert_events(connection: sqlite3.Connection, events: Sequence[NewEvent]) -> None:
    connection.executemany(
        "INSERT INTO events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                event.job_id,
                event.version,
                event.event_id,
                event.type,
                event.schema_version,
                event.recorded_at,
                event.payload.decode(),
                event.hash,
            )
            for event in events
        ],
    )


def rows_after(
    connection: sqlite3.Connection, job_id: str, after: int, until: int, limit: int = -1
) -> Sequence[StoredRow]:
    """Events of a job as they are stored; what damage did to a column's type does not get past the casts."""
    return connection.execute(
        "SELECT version, event_id, type, schema_version, recorded_at, coalesce(CAST(data AS BLOB), x''),"
        " coalesce(CAST(hash AS TEXT), '')"
        " FROM events WHERE job_id = ? AND version > ? AND version <= ? ORDER BY version LIMIT ?",
        (job_id, after, until, limit),
    ).fetchall()


def marks_between(connection: sqlite3.Connection, job_id: str, first: int, last: int) -> Mapping[int, Mark]:
    found = connection.execute(
        "SELECT version, event_id, hash FROM events WHERE job_id = ? AND version BETWEEN ? AND ?", (job_id, first, last)
    )
    return {version: Mark(event_id, hash) for version, event_id, hash in found}


# --- keys and requests -----------------------------------------------------------------------------------------------


class KeyHolder(NamedTuple):
    """The job that has a key."""

    job_id: str
    input_hash: str


def holder_of_key(connection: sqlite3.Connection, workflow: str, key: str) -> KeyHolder | None:
    row = connection.execute(
        "SELECT job_id, input_hash FROM job_keys WHERE workflow = ? AND key = ?", (workflow, key)
    ).fetchone()
    return KeyHolder(*row) if row else None


def insert_key(connection: sqlite3.Connection, workflow: str, key: str, holder: KeyHolder) -> None:
    connection.execute(
        "INSERT INTO job_keys (workflow, key, job_id, input_hash) VALUES (?, ?, ?, ?)",
        (workflow, key, holder.job_id, holder.input_hash),
    )


def jobs_of_key(connection: sqlite3.Connection, workflow: str | None, key: str) -> list[str]:
    found = connection.execute(
        "SELECT job_id FROM job_keys WHERE key = :key AND (:workflow IS NULL OR workflow = :workflow)"
        " ORDER BY job_id DESC",
        {"key": key, "workflow": workflow},
    )
    return [job_id for (job_id,) in found]


def version_of_request(connection: sqlite3.Connection, job_id: str, request_id: str) -> int | None:
    row = connection.execute(
        "SELECT version FROM requests WHERE job_id = ? AND request_id = ?", (job_id, request_id)
    ).fetchone()
    return row[0] if row else None


def insert_request(connection: sqlite3.Connection, job_id: str, request_id: str, version: int) -> None:
    connection.execute(
        "INSERT INTO requests (job_id, request_id, version) VALUES (?, ?, ?)", (job_id, request_id, version)
    )


# --- workers ---------------------------------------------------------------------------------------------------------


class WorkerRow(NamedTuple):
    """What a claim needs to know of a worker."""

    lock_byte: int
    state: Literal["alive", "dead", "stopped"]
    identity: WorkerIdentity


def find_worker(connection: sqlite3.Connection, worker_id: str) -> WorkerRow | None:
    row = connection.execute(
        "SELECT lock_byte, state, worker_id, host, pid, boot_id, pid_namespace, process_started"
        " FROM workers WHERE worker_id = ?",
        (worker_id,),
    ).fetchone()
    return WorkerRow(row[0], row[1], WorkerIdentity(*row[2:])) if row else None


def insert_worker(connection: sqlite3.Connection, worker: WorkerIdentity, started_at: str) -> int:
    """Returns the byte of the lock file that is the worker's."""
    ((lock_byte,),) = connection.execute(
        "INSERT INTO workers (worker_id, state, host, pid, boot_id, pid_namespace, process_started, started_at)"
        " VALUES (?, 'alive', ?, ?, ?, ?, ?, ?) RETURNING lock_byte",
        (
            worker.worker_id,
            worker.host,
            worker.pid,
            worker.boot_id,
            worker.pid_namespace,
            worker.process_started,
            started_at,
        ),
    ).fetchall()
    return int(lock_byte)


def end_worker(connection: sqlite3.Connection, worker_id: str, state: Literal["dead", "stopped"], at: str) -> None:
    """A worker ends once: one that has ended already keeps its state."""
    connection.execute(
        "UPDATE workers SET state = ?, ended_at = ? WHERE worker_id = ? AND state = 'alive'", (state, at, worker_id)
    )


def list_workers(connection: sqlite3.Connection) -> Iterator[Worker]:
    found = connection.execute(
        "SELECT worker_id, host, pid, boot_id, pid_namespace, process_started, state, started_at"
        " FROM workers ORDER BY lock_byte DESC"
    )
    return map(_worker, found)


def _worker(row: Sequence[Any]) -> Worker:
    *identity, state, started_at = row
    return Worker(WorkerIdentity(*identity), state, started_at, None)


def _json(value: object) -> str:
    # What is in a head came out of the log, where it was checked.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
