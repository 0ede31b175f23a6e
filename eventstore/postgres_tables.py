"""One PostgreSQL table each: the statements on it, and its rows as the store's values. No transactions, no rules."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import orjson

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import JobNotFound, StoreError
from steplog.eventstore.finding import oldest_id
from steplog.eventstore.heads import HEAD_COLUMNS, counted
from steplog.eventstore.postgres_connections import Run
from steplog.eventstore.postgres_documents import item_parameters
from steplog.eventstore.rows import StoredRow
from steplog.eventstore.states import ANY_BUT_STORED, decode_state, encode_state
from steplog.eventstore.store import (
    Answer,
    Append,
    Beat,
    Code,
    Head,
    HeadColumns,
    HeadQuery,
    Look,
    StoredState,
    Worker,
    WorkerIdentity,
)

_VERSION_MAX = (1 << 63) - 1

# --- jobs ------------------------------------------------------------------------------------------------------------

_HEAD = """
select job_id::text, version, hash, {s}.instant(recorded_at), epoch, claim_id, worker_id, workflow, status,
       {s}.instant(created_at), {s}.instant(updated_at), mode, phase, last_error, failed_sub_step,
       {s}.instant(wake_at), {s}.instant(ended_at), done, total, key, tags, priority, batch_id
from {s}.jobs where job_id = %s
"""

_HEADS_OF = """
select job_id::text, version, hash, {s}.instant(recorded_at), epoch, claim_id, worker_id, workflow, status,
       {s}.instant(created_at), {s}.instant(updated_at), mode, phase, last_error, failed_sub_step,
       {s}.instant(wake_at), {s}.instant(ended_at), done, total, key, tags, priority, batch_id
from {s}.jobs where job_id = any(%s::uuid[])
"""

_LOOK = """
select job_id::text, version, hash, {s}.instant(recorded_at), epoch, claim_id, jobs.worker_id, workflow, status,
       {s}.instant(created_at), {s}.instant(updated_at), mode, phase, last_error, failed_sub_step,
       {s}.instant(wake_at), {s}.instant(jobs.ended_at), done, total, key, tags, priority, batch_id,
       workers.worker_id, host, pid, boot_id, pid_namespace, process_started, state,
       {s}.instant(started_at), {s}.instant(expires_at),
       {s}.instant(clock_timestamp())
from {s}.jobs left join {s}.workers on workers.worker_id = jobs.worker_id where job_id = %s
"""

APPEND_ONE = "select {s}.append_one(%s, %s, %s, %s, %s, %s, %s, %s)"

_LOCK_HEAD = "select true from {s}.jobs where job_id = %s for no key update"

_HEADS = """
select job_id::text, version, hash, {s}.instant(recorded_at), epoch, claim_id, worker_id, workflow, status,
       {s}.instant(created_at), {s}.instant(updated_at), mode, phase, last_error, failed_sub_step,
       {s}.instant(wake_at), {s}.instant(ended_at), done, total, key, tags, priority, batch_id
from {s}.jobs
where (%(before)s::uuid is null or job_id < %(before)s)
  and (%(workflow)s::text is null or workflow = %(workflow)s)
  and (%(status)s::text is null or status = %(status)s)
  and (%(phase)s::text is null or phase = %(phase)s)
  and (%(key)s::text is null or key = %(key)s)
  and (%(since)s::timestamptz is null or created_at >= %(since)s)
  and (%(oldest)s::uuid is null or job_id >= %(oldest)s)
  and (%(failed_sub_step)s::text is null or failed_sub_step = %(failed_sub_step)s)
  and (%(batch_id)s::text is null or batch_id = %(batch_id)s)
  and (%(tags)s::jsonb is null or tags @> %(tags)s)
order by jobs.job_id desc limit %(limit)s
"""

_ENDING_IN = """
select job_id::text from {s}.jobs
where reverse(job_id::text) collate "C" like %s
order by jobs.job_id desc limit %s
"""


def append_one(run: Run, item: Append) -> Answer:
    """Append to one job, inside a transaction of the caller's that holds the head's lock."""
    (((job_id, code, version),),) = run(APPEND_ONE, [value.decode() for value in item_parameters(item)])
    return Answer(job_id, Code(code), version)


def get_head(run: Run, job_id: str) -> Head:
    """The job's row. Raises JobNotFound."""
    rows = run(_HEAD, [job_uuid(job_id)])
    if not rows:
        raise JobNotFound(job_id)
    return head_from(rows[0])


def get_heads(run: Run, job_ids: Sequence[str]) -> list[Head]:
    """The rows of those that are there."""
    return [head_from(row) for row in run(_HEADS_OF, [list(job_ids)])]


def look_at(run: Run, job_id: str) -> Look:
    """The job's row and its owner's. Raises JobNotFound."""
    rows = run(_LOOK, [job_uuid(job_id)])
    if not rows:
        raise JobNotFound(job_id)
    *row, now = rows[0]
    of_job, of_owner = row[:HEAD_COLUMNS], row[HEAD_COLUMNS:]
    return Look(head_from(of_job), None if of_owner[0] is None else _worker(of_owner), now)


def lock_head(run: Run, job_id: str) -> Head:
    """The job's row, which nobody else changes until the transaction ends. Raises JobNotFound."""
    run(_LOCK_HEAD, [job_uuid(job_id)])
    # Read by a statement of its own: its snapshot comes after the lock.
    return get_head(run, job_id)


def list_heads(run: Run, query: HeadQuery) -> list[Head]:
    """Rows that match, newest first: ids are UUIDv7, so their order is that of creation."""
    wanted = {
        "before": query.before and job_uuid(query.before),
        "workflow": query.workflow,
        "status": query.status,
        "phase": query.phase,
        "key": query.key,
        "since": query.since,
        "oldest": oldest_id(query.since) or None,
        "failed_sub_step": query.failed_sub_step,
        "batch_id": query.batch_id,
        "tags": orjson.dumps(query.tags).decode() if query.tags else None,
        "limit": max(query.limit, 0),
    }
    return [head_from(row) for row in run(_HEADS, wanted)]


def count_jobs(run: Run) -> dict[str, dict[str, int]]:
    """How many jobs there are, by workflow and status."""
    return counted(run("select workflow, status, count(*) from {s}.jobs group by 1, 2", []))


def job_ids_ending_in(run: Run, suffix: str, limit: int) -> list[str]:
    escaped = suffix[::-1].replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return [job_id for (job_id,) in run(_ENDING_IN, [f"{escaped}%", max(limit, 0)])]


def job_uuid(job_id: str) -> str:
    """The id itself. Raises JobNotFound where it is none that a job could have."""
    try:
        if str(uuid.UUID(job_id)) == job_id:
            return job_id
    except ValueError:
        pass
    raise JobNotFound(job_id)


def head_from(row: Sequence[Any]) -> Head:
    """A head of its columns, in the order of the statements above."""
    job_id, version, hash, recorded_at, epoch, claim_id, worker_id, *columns = row
    return Head(job_id, version, hash, recorded_at, HeadColumns(*columns), epoch, claim_id, worker_id)


# --- events ----------------------------------------------------------------------------------------------------------

# Versions have no gaps, so many rows are a range of versions: up to a limit, a planner that knows little of
# the table reads all that are left and sorts them, once for each page.
_ROWS = """
select version, event_id::text, type, schema_version, {s}.instant(recorded_at), data::text, hash
from {s}.events where job_id = %s and version > %s and version <= %s
order by version
"""


def rows_after(
    run: Run, job_id: str, after: int, until: int | None = None, limit: int | None = None
) -> Sequence[StoredRow]:
    """Rows of the next `limit` versions, or of all, up to `until`."""
    last = min(_VERSION_MAX if until is None else until, _VERSION_MAX if limit is None else after + limit)
    return run(_ROWS, [job_id, after, last])


# --- keys and requests -----------------------------------------------------------------------------------------------

_JOBS_OF_KEY = """
select job_id::text from {s}.job_keys
where key = %(key)s and (%(workflow)s::text is null or workflow = %(workflow)s)
order by job_id desc
"""


def jobs_of_key(run: Run, workflow: str | None, key: str) -> list[str]:
    return [job_id for (job_id,) in run(_JOBS_OF_KEY, {"key": key, "workflow": workflow})]


def version_of_request(run: Run, job_id: str, request_id: str) -> int | None:
    rows = run("select version from {s}.requests where job_id = %s and request_id = %s", [job_id, request_id])
    return int(rows[0][0]) if rows else None


# --- stored states ---------------------------------------------------------------------------------------------------

# One round trip: the head, the latest state that is one of this log, and the first events behind it, in that order.
_OPENED = """
with head as (
    select version, hash, least(%(until)s::bigint, version) as until from {s}.jobs where job_id = %(job_id)s::uuid
), latest as (
    select s.version, s.hash, s.recorded_at, s.state, s.digest
    from {s}.snapshots as s join {s}.events as e on e.job_id = s.job_id and e.version = s.version and e.hash = s.hash
    where s.job_id = %(job_id)s::uuid and s.reducer_version = %(reducer_version)s
        and s.version <= (select until from head)
    order by s.version desc limit 1
)
select 0, version, null, null, null::integer, null, null, hash from head
union all
select 1, version, null, digest, null::integer, {s}.instant(recorded_at), state::text, hash from latest
union all (
    select 2, version, event_id::text, type, schema_version, {s}.instant(recorded_at), data::text, hash
    from {s}.events
    where job_id = %(job_id)s::uuid and version > coalesce((select version from latest), 0)
        and version <= least((select until from head), coalesce((select version from latest), 0) + %(limit)s::integer)
)
order by 1, 2
"""

_INSERT_STATE = """
insert into {s}.snapshots (job_id, reducer_version, version, hash, recorded_at, state, digest)
select job_id, %s, version, hash, recorded_at, %s, %s from {s}.events
where job_id = %s and version = %s and hash = %s
on conflict do nothing
"""


def open_job(
    run: Run, job_id: str, reducer_version: int, until: int | None, limit: int
) -> tuple[int, str, StoredState | None, list[StoredRow]]:
    """The head's version and hash, the latest state up to `until`, and at most `limit` rows behind it."""
    given = {
        "job_id": job_uuid(job_id),
        "reducer_version": reducer_version,
        "until": _VERSION_MAX if until is None else until,
        "limit": limit,
    }
    found = run(_OPENED, given)
    if not found:
        raise JobNotFound(job_id)
    _, head_version, *_, head_hash = found.pop(0)
    stored: StoredState | None = None
    if found and found[0][0] == 1:
        _, version, _, digest, _, recorded_at, text, hash = found.pop(0)
        stored = decode_state(job_id, reducer_version, Position(version, hash, recorded_at), text, digest)
        if stored is None:
            return open_job(run, job_id, ANY_BUT_STORED, until, limit)
    return head_version, head_hash, stored, [row[1:] for row in found]


def insert_state(run: Run, stored: StoredState) -> None:
    """A state of a log that is not this one, for it went backwards meanwhile, is not kept."""
    at = stored.position
    text, digest = encode_state(stored)
    run(_INSERT_STATE, [stored.reducer_version, text, digest, job_uuid(stored.job_id), at.version, at.hash])


# --- workers ---------------------------------------------------------------------------------------------------------

_INSERT_WORKER = """
insert into {s}.workers (worker_id, host, pid, boot_id, pid_namespace, process_started, state, expires_at)
values (%s, %s, %s, %s, %s, %s, 'alive', clock_timestamp() + make_interval(secs => %s))
on conflict (worker_id) do nothing
"""

_WORKER = """
select worker_id, host, pid, boot_id, pid_namespace, process_started, state,
       {s}.instant(started_at), {s}.instant(expires_at)
from {s}.workers where worker_id = %s
"""

_WORKERS = """
select worker_id, host, pid, boot_id, pid_namespace, process_started, state,
       {s}.instant(started_at), {s}.instant(expires_at)
from {s}.workers order by workers.started_at desc, worker_id desc
"""

_BEAT = """
with beaten as (
    update {s}.workers set expires_at = clock_timestamp() + make_interval(secs => %s)
    where worker_id = %s and state = 'alive'
    returning worker_id
)
select {s}.instant(clock_timestamp()), jobs.job_id::text, jobs.version, jobs.epoch
from beaten left join {s}.jobs on jobs.worker_id = beaten.worker_id
"""

_EXPIRE_WORKER = """
update {s}.workers set state = 'dead', ended_at = clock_timestamp()
where worker_id = %s and state = 'alive' and expires_at < clock_timestamp()
returning worker_id
"""

_END_WORKER = """
update {s}.workers set state = %s, ended_at = clock_timestamp()
where worker_id = %s and state = 'alive'
"""


class WorkerRow(NamedTuple):
    """What a claim needs to know of a worker."""

    identity: WorkerIdentity
    state: Literal["alive", "dead", "stopped"]
    expires_at: str


def insert_worker(run: Run, worker: WorkerIdentity, lease_s: float) -> None:
    """An id that is known already keeps its row."""
    identity = [worker.worker_id, worker.host, worker.pid, worker.boot_id, worker.pid_namespace]
    run(_INSERT_WORKER, [*identity, worker.process_started, lease_s])


def find_worker(run: Run, worker_id: str) -> WorkerRow | None:
    rows = run(_WORKER, [worker_id])
    if not rows:
        return None
    *identity, state, _, expires_at = rows[0]
    return WorkerRow(WorkerIdentity(*identity), state, expires_at)


def list_workers(run: Run) -> list[Worker]:
    return list(map(_worker, run(_WORKERS, [])))


def _worker(row: Sequence[Any]) -> Worker:
    *identity, state, started_at, expires_at = row
    return Worker(WorkerIdentity(*identity), state, started_at, expires_at)


def beat(run: Run, worker_id: str, lease_s: float) -> Beat | None:
    """The renewed lease's answer, or None where the worker is not alive."""
    rows = run(_BEAT, [lease_s, worker_id])
    if not rows:
        return None
    return Beat(rows[0][0], {job_id: (version, epoch) for _, job_id, version, epoch in rows if job_id is not None})


def expire_worker(run: Run, worker_id: str) -> bool:
    """Declare the worker dead if its lease is over: one compare-and-set, so a lease renewed in between is kept."""
    return bool(run(_EXPIRE_WORKER, [worker_id]))


def end_worker(run: Run, worker_id: str, state: Literal["dead", "stopped"]) -> None:
    """A worker ends once: one that has ended already keeps its state."""
    run(_END_WORKER, [state, worker_id])


# --- what the server promises ----------------------------------------------------------------------------------------


def require_durable(run: Run) -> list[str]:
    """Settings under which a power cut may damage what was acknowledged; StoreError where a mere crash loses it."""
    ((synchronous_commit, fsync, full_page_writes),) = run(
        "select current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')",
        [],
    )
    if synchronous_commit == "off":
        raise StoreError("synchronous_commit is off: what was acknowledged could be lost; turn it on for this role")
    settings = {"fsync": fsync, "full_page_writes": full_page_writes}
    return [name for name, value in settings.items() if value == "off"]


def is_distributed(run: Run) -> bool:
    """Whether jobs may lie on different servers, so that one statement for many of them is none."""
    return bool(run("select exists (select from pg_catalog.pg_extension where extname = 'citus')", [])[0][0])
