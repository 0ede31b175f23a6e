"""What a worker may claim, in PostgreSQL: found, claimed and given up by statements of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from psycopg.types.json import Json

from steplog.eventstore.errors import LogError, OutcomeUnknown, WorkerDead
from steplog.eventstore.events import Event
from steplog.eventstore.postgres_connections import Run
from steplog.eventstore.postgres_documents import claim_document
from steplog.eventstore.postgres_tables import head_from, job_uuid
from steplog.eventstore.process_identity import certainly_dead, own_boot_id
from steplog.eventstore.rows import StoredRow
from steplog.eventstore.store import (
    Answer,
    Append,
    BatchCount,
    Claim,
    Code,
    Head,
    Slots,
    Work,
    WorkerIdentity,
    WorkQuery,
)
from steplog.eventstore.stream import batch_counts, logs_of

_LOOK = "select {s}.look_for_work(%s, %s, %s::uuid[], %s, %s::jsonb, %s)"

_HEADS_OF = """
select job_id::text, version, hash, {s}.instant(recorded_at), epoch, claim_id, worker_id, workflow, status,
       {s}.instant(created_at), {s}.instant(updated_at), mode, phase, last_error, failed_sub_step,
       {s}.instant(wake_at), {s}.instant(ended_at), done, total, key, tags, priority, batch_id
from {s}.jobs where job_id = any(%s::uuid[])
union all
select job_id::text, version, hash, {s}.instant(recorded_at), epoch, claim_id, worker_id, workflow, status,
       {s}.instant(created_at), {s}.instant(updated_at), mode, phase, last_error, failed_sub_step,
       {s}.instant(wake_at), {s}.instant(ended_at), done, total, key, tags, priority, batch_id
from {s}.jobs where worker_id = any(%s) and workflow = any(%s)
limit %s
"""

_LONGEST_READY = """
select job_id::text from {s}.jobs
where worker_id is null and wake_at is not null and wake_at <= clock_timestamp()
order by wake_at limit %s
"""

_LOGS = """
select job_id::text, version, event_id::text, type, schema_version, {s}.instant(recorded_at), data::text, hash
from {s}.events join unnest(%s::uuid[], %s::bigint[]) as wanted (job_id, until) using (job_id)
where version <= until
order by job_id, version
"""

_CLAIM = "select {s}.claim_jobs(%s, %s)"

_ABANDON = """
update {s}.jobs set worker_id = null, claim_id = null where job_id = %s and epoch = %s and claim_id = %s
"""

_NEWEST_BATCHES = """
with recursive newest (batch_id) as (
    (select max(batch_id) from {s}.jobs where batch_id is not null)
    union all
    select (select max(batch_id) from {s}.jobs where jobs.batch_id < newest.batch_id)
    from newest where newest.batch_id is not null
)
select batch_id from newest where batch_id is not null limit %s
"""

_COUNT_BATCHES = """
select batch_id, {s}.instant(min(created_at)), status, count(*) from {s}.jobs
where batch_id = any(%s)
group by batch_id, status
"""


def look(run: Run, query: WorkQuery) -> Work:
    """One query where there is nothing to do, two where there is."""
    refused = list(query.refused)
    used_up = orjson.dumps([{"workflow": workflow, "tags": tags} for workflow, tags in query.used_up]).decode()
    ((found,),) = run(
        _LOOK,
        [
            list(query.workflows),
            query.limit,
            refused,
            [query.refused[job_id] for job_id in refused],
            used_up,
            own_boot_id(),
        ],
    )
    gone = [worker_id for worker_id, *identity, lives in found["owners"] if not lives or _has_died(worker_id, identity)]
    heads: dict[str, Head] = {}
    if found["due"] or gone:
        limit = len(found["due"]) + query.limit
        rows = run(_HEADS_OF, [found["due"], gone, list(query.workflows), limit])
        heads = {row[0]: head_from(row) for row in rows}
    due = [heads[job_id] for job_id in found["due"] if job_id in heads and heads[job_id].worker_id is None]
    left = [head for head in heads.values() if head.worker_id in gone and not _is_refused(head, query)]
    return Work(found["now"], due, left, found["next_at"])


def _has_died(worker_id: str, identity: Sequence[Any]) -> bool:
    return certainly_dead(WorkerIdentity(worker_id, *identity))


def _is_refused(head: Head, query: WorkQuery) -> bool:
    return query.refused.get(head.job_id) == head.version


def read_heads(run: Run, heads: Sequence[Head]) -> dict[str, list[Event] | LogError]:
    """In one query, whatever their number."""
    rows: dict[str, list[StoredRow]] = {head.job_id: [] for head in heads}
    for job_id, *row in run(_LOGS, [[head.job_id for head in heads], [head.version for head in heads]]):
        rows[job_id].append(row)
    return logs_of(heads, lambda head: rows[head.job_id])


def claim_many(run: Run, batch: Sequence[Append], slots: Slots) -> list[Answer]:
    """Raises WorkerDead, and OutcomeUnknown where the answers are not those of the batch."""
    claimant = batch[0].claim.worker_id
    documents = Json([claim_document(item, slots.get(item.job_id, ())) for item in batch], dumps=orjson.dumps)
    ((found,),) = run(_CLAIM, [claimant, documents])
    if found is None:
        raise WorkerDead(claimant)
    answers = {job_id: Answer(job_id, Code(code), version, limit) for job_id, code, version, limit in found}
    if answers.keys() != {item.job_id for item in batch}:
        raise OutcomeUnknown(f"{len(found)} answers came back that do not belong to the {len(batch)} claims sent")
    return [answers[item.job_id] for item in batch]


def abandon(run: Run, job_id: str, claim: Claim) -> None:
    run(_ABANDON, [job_uuid(job_id), claim.epoch, claim.claim_id])


def owned_counts(run: Run) -> dict[str, int]:
    return dict(run("select worker_id, count(*) from {s}.jobs where worker_id is not null group by worker_id", []))


def longest_ready(run: Run, limit: int) -> list[Head]:
    found = [job_id for (job_id,) in run(_LONGEST_READY, [max(limit, 0)])]
    heads = {row[0]: head_from(row) for row in run(_HEADS_OF, [found, [], [], len(found)])} if found else {}
    return [heads[job_id] for job_id in found if job_id in heads]


def batches(run: Run, batch_id: str | None, limit: int) -> list[BatchCount]:
    """Newest first, as their ids are ordered."""
    if batch_id is None:
        names = [name for (name,) in run(_NEWEST_BATCHES, [max(limit, 0)])]
    else:
        names = [batch_id]
    return batch_counts(run(_COUNT_BATCHES, [names]))
