"""A schema of a PostgreSQL database as an auditor sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from steplog.eventstore.chain import Position
from steplog.eventstore.inspection import PAGE_JOBS, Key, StoredState, one_by_one
from steplog.eventstore.postgres_connections import Run
from steplog.eventstore.postgres_tables import job_uuid
from steplog.eventstore.rows import Row, StoredRow, as_row
from steplog.eventstore.states import audited_state

_NIL = "00000000-0000-0000-0000-000000000000"

# One step down the index for each job, however many events it has.
_JOB_IDS = """
with recursive logs (job_id) as (
    (select job_id from {s}.events where job_id > %(after)s order by job_id limit 1)
    union all
    select (select events.job_id from {s}.events where events.job_id > logs.job_id order by events.job_id limit 1)
    from logs where logs.job_id is not null
)
select job_id::text from (
    (select job_id from {s}.jobs where job_id > %(after)s order by job_id limit %(limit)s)
    union
    (select job_id from logs where job_id is not null limit %(limit)s)
    union
    (select distinct job_id from {s}.snapshots where job_id > %(after)s order by job_id limit %(limit)s)
) as known
order by known.job_id limit %(limit)s
"""

_NEXT_STATE = """
select version, reducer_version, hash, {s}.instant(recorded_at), state::text, digest from {s}.snapshots
where job_id = %s and (version, reducer_version) > (%s, %s)
order by version, reducer_version limit 1
"""

_KEY = "select workflow, key, job_id::text, input_hash from {s}.job_keys where workflow = %s and key = %s"

_KEYS = """
select workflow, key, job_id::text, input_hash from {s}.job_keys
where (workflow, key) > (%s, %s) order by workflow, key limit %s
"""


class PostgresInspection:
    """Reads through the store's own connections, a statement at a time."""

    def __init__(self, run: Run, rows: Callable[[str, int, int | None], Iterator[StoredRow]]) -> None:
        self._run = run
        self._rows = rows

    def job_ids(self, after: str = "", limit: int = PAGE_JOBS) -> list[str]:
        return [job_id for (job_id,) in self._run(_JOB_IDS, {"after": after or _NIL, "limit": limit})]

    def rows(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Row]:
        return map(as_row, self._rows(job_uuid(job_id), after, until))

    def states(self, job_id: str) -> Iterator[StoredState]:
        return one_by_one(partial(self._next_state, job_uuid(job_id)))

    def _next_state(self, job_id: str, after: tuple[int, int]) -> StoredState | None:
        rows = self._run(_NEXT_STATE, [job_id, *after])
        if not rows:
            return None
        version, reducer_version, hash, recorded_at, text, digest = rows[0]
        return audited_state(job_id, reducer_version, Position(version, hash, recorded_at), text, digest)

    def key(self, workflow: str, key: str) -> Key | None:
        rows = self._run(_KEY, [workflow, key])
        return Key(*rows[0]) if rows else None

    def keys(self, after: tuple[str, str] = ("", ""), limit: int = PAGE_JOBS) -> list[Key]:
        return [Key(*row) for row in self._run(_KEYS, [*after, limit])]

    def damage(self) -> list[str]:
        """Nothing: PostgreSQL's checksums speak up where a page is read."""
        return []
