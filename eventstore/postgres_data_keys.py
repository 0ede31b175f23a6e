"""The table of data keys in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import LiteralString

from steplog.eventstore.data_keys import DataKey
from steplog.eventstore.postgres_connections import Run
from steplog.eventstore.store import NewJob

KEY: LiteralString = "select job_id::text, wrapped, {s}.instant(erased_at) from {s}.data_keys where job_id = %s"
ADD: LiteralString = """
insert into {s}.data_keys (job_id, wrapped) values (%s, %s) on conflict (job_id) do nothing returning true
"""
_ADD_MANY = """
insert into {s}.data_keys (job_id, wrapped)
select new.job_id, new.wrapped from unnest(%s::uuid[], %s::text[]) as new (job_id, wrapped)
on conflict (job_id) do nothing returning true
"""
_REWRAP = "update {s}.data_keys set wrapped = %s where job_id = %s and wrapped = %s returning true"
_AFTER = """
select job_id::text, wrapped, {s}.instant(erased_at) from {s}.data_keys
where %s::uuid is null or job_id > %s::uuid order by job_id limit %s
"""
_ERASE = """
insert into {s}.data_keys as known (job_id, erased_at) values (%s, clock_timestamp())
on conflict (job_id) do update set wrapped = null, erased_at = excluded.erased_at where known.wrapped is not null
returning true
"""


def insert_of(run: Run, jobs: Sequence[NewJob]) -> None:
    """The keys that new jobs bring along."""
    brought = [(job.job_id, job.data_key) for job in jobs if job.data_key is not None]
    if brought:
        run(_ADD_MANY, [[job_id for job_id, _ in brought], [wrapped for _, wrapped in brought]])


def erase(run: Run, job_id: str) -> None:
    """Destroy the job's key, and let it have none any more."""
    run(_ERASE, [job_id])


class PostgresDataKeys:
    """The keys in one schema."""

    def __init__(self, run: Run, transaction: Callable[[Callable[[Run], DataKey]], DataKey]) -> None:
        self._run = run
        self._transaction = transaction

    def find(self, job_id: str) -> DataKey | None:
        rows = self._run(KEY, [job_id])
        return DataKey(*rows[0]) if rows else None

    def add(self, job_id: str, wrapped: str) -> DataKey:
        def added(run: Run) -> DataKey:
            run(ADD, [job_id, wrapped])
            return DataKey(*run(KEY, [job_id])[0])

        return self._transaction(added)

    def rewrap(self, before: DataKey, wrapped: str) -> bool:
        return bool(self._run(_REWRAP, [wrapped, before.job_id, before.wrapped]))

    def after(self, job_id: str = "", limit: int = 500) -> list[DataKey]:
        return [DataKey(*row) for row in self._run(_AFTER, [job_id or None, job_id or None, limit])]
