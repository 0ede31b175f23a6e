"""A SQLite file as an auditor sees it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from steplog.eventstore.chain import Position
from steplog.eventstore.inspection import PAGE_JOBS, Key, StoredState, one_by_one
from steplog.eventstore.rows import Row, StoredRow, as_row
from steplog.eventstore.states import audited_state

# One step down the index for each job, however many events it has.
_JOB_IDS = """
WITH RECURSIVE logs (job_id) AS (
    SELECT * FROM (SELECT job_id FROM events WHERE job_id > :after ORDER BY job_id LIMIT 1)
    UNION ALL
    SELECT (SELECT job_id FROM events WHERE events.job_id > logs.job_id ORDER BY job_id LIMIT 1)
    FROM logs WHERE logs.job_id IS NOT NULL
    LIMIT :limit
)
SELECT job_id FROM (SELECT job_id FROM jobs WHERE job_id > :after ORDER BY job_id LIMIT :limit)
UNION
SELECT job_id FROM logs WHERE job_id IS NOT NULL
UNION
SELECT job_id FROM (SELECT DISTINCT job_id FROM snapshots WHERE job_id > :after ORDER BY job_id LIMIT :limit)
ORDER BY job_id LIMIT :limit
"""

_NEXT_STATE = """
SELECT version, reducer_version, hash, recorded_at, state, digest FROM snapshots
WHERE job_id = ? AND (version, reducer_version) > (?, ?)
ORDER BY version, reducer_version LIMIT 1
"""

_KEYS = """
SELECT workflow, key, job_id, input_hash FROM job_keys
WHERE (workflow, key) > (?, ?) ORDER BY workflow, key LIMIT ?
"""


class SQLiteInspection:
    """Reads through the store's own connections; `rows` is the store's, which names what cannot be read."""

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[sqlite3.Connection]],
        rows: Callable[[str, int, int], Iterator[StoredRow]],
    ) -> None:
        self._reading = reading
        self._rows = rows

    def job_ids(self, after: str = "", limit: int = PAGE_JOBS) -> list[str]:
        with self._reading() as connection:
            found = connection.execute(_JOB_IDS, {"after": after, "limit": limit})
            return [job_id for (job_id,) in found]

    def rows(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Row]:
        return map(as_row, self._rows(job_id, after, (1 << 63) - 1 if until is None else until))

    def states(self, job_id: str) -> Iterator[StoredState]:
        return one_by_one(partial(self._next_state, job_id))

    def _next_state(self, job_id: str, after: tuple[int, int]) -> StoredState | None:
        with self._reading() as connection:
            row = connection.execute(_NEXT_STATE, (job_id, *after)).fetchone()
        if row is None:
            return None
        version, reducer_version, hash, recorded_at, text, digest = row
        return audited_state(job_id, reducer_version, Position(version, hash, recorded_at), text, digest)

    def key(self, workflow: str, key: str) -> Key | None:
        with self._reading() as connection:
            row = connection.execute(
                "SELECT workflow, key, job_id, input_hash FROM job_keys WHERE workflow = ? AND key = ?", (workflow, key)
            ).fetchone()
        return Key(*row) if row else None

    def keys(self, after: tuple[str, str] = ("", ""), limit: int = PAGE_JOBS) -> list[Key]:
        with self._reading() as connection:
            return [Key(*row) for row in connection.execute(_KEYS, (*after, limit))]

    def damage(self) -> list[str]:
        with self._reading() as connection:
            found = [text for (text,) in connection.execute("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found
