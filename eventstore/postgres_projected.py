"""Projections in a schema of PostgreSQL: each change is one short transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson
from psycopg import sql

from steplog.eventstore.postgres_connections import Run
from steplog.eventstore.projected import Change, Checkpoint, Document, JobVersion, Move, Quarantined, StepRow

_NIL = "00000000-0000-0000-0000-000000000000"

# A generation that is being built is nothing to the planner yet, which would read all of it for a few keys or for each
# page of a join: one look at the index for each is asked of it.
_DOCUMENTS = """
select wanted.key, found.version, found.document
from unnest(%(keys)s::text[]) as wanted (key) cross join lateral (
    select version, document::text from {s}.projected
    where projection = %(name)s and generation = %(generation)s and projected.key = wanted.key offset 0
) as found
"""

_PAGE = """
select key, version, document::text from {s}.projected
where projection = %s and generation = %s and key > %s order by key limit %s
"""

_JOBS = """
select page.job_id::text, page.version, (
    select projected.version from {s}.projected
    where projection = %(name)s and generation = %(generation)s and key = page.job_id::text
)
from (select job_id, version from {s}.jobs where job_id > %(after)s order by job_id limit %(limit)s) as page
order by page.job_id
"""

_PUT = """
insert into {s}.projected (projection, generation, key, version, document)
select %s, %s, new.key, new.version, new.document
from json_to_recordset(%s::json) as new (key text, version bigint, document json)
order by new.key
on conflict (projection, generation, key)
do update set version = excluded.version, document = excluded.document
"""

_REMOVE = """
delete from {s}.projected
where projection = %(name)s and generation = %(generation)s and key = any (array(
    select key from {s}.projected where projection = %(name)s and generation = %(generation)s limit %(limit)s
))
returning true
"""

_BEGIN = """
insert into {s}.projections (name, checkpoint) values (%s, %s) on conflict (name) do nothing returning true
"""
_GO_ON = """
update {s}.projections set checkpoint = %s, updated_at = clock_timestamp()
where name = %s and checkpoint::text = %s returning true
"""
_END = "delete from {s}.projections where name = %s and checkpoint::text = %s returning true"

_QUARANTINE = """
insert into {s}.quarantine (projection, job_id, version, error) values (%s, %s, %s, %s)
on conflict (projection, job_id) do update set version = excluded.version, error = excluded.error
"""

T = TypeVar("T")


class _Late(Exception):
    """A checkpoint is not what it should be."""


class PostgresProjected:
    """Reads and writes through the store's own connections."""

    def __init__(self, run: Run, transaction: Callable[[Callable[[Run], None]], None], schema: str) -> None:
        self._run = run
        self._transaction = transaction
        self._schema = schema

    def checkpoints(self) -> dict[str, Checkpoint]:
        rows = self._run("select name, checkpoint::text from {s}.projections order by name", [])
        return {name: orjson.loads(text) for name, text in rows}

    def documents(self, name: str, generation: int, keys: Sequence[str]) -> dict[str, Document]:
        given = {"name": name, "generation": generation, "keys": list(keys)}
        return {row[0]: _document(row) for row in self._run(_DOCUMENTS, given)}

    def page(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[Document]:
        return [_document(row) for row in self._run(_PAGE, [name, generation, after, limit])]

    def jobs(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[JobVersion]:
        given = {"name": name, "generation": generation, "after": after or _NIL, "limit": limit}
        return [JobVersion(*row) for row in self._run(_JOBS, given)]

    def store(self, change: Change) -> bool:
        def write(run: Run) -> None:
            for move in sorted(change.moves):
                _move(run, move)
            documents = [
                {"key": document.key, "version": document.version, "document": document.data}
                for document in change.documents
            ]
            if documents:
                run(_PUT, [change.name, change.generation, _json(documents)])
            for row in change.rows:
                self._put_row(run, change.table, row)
            for job in change.quarantined:
                run(_QUARANTINE, list(job))

        try:
            self._transaction(write)
        except _Late:
            return False
        return True

    def remove(self, name: str, generation: int, limit: int = 1000) -> int:
        return len(self._run(_REMOVE, {"name": name, "generation": generation, "limit": limit}))

    def quarantined(self) -> list[Quarantined]:
        query = "select projection, job_id::text, version, error from {s}.quarantine order by projection, job_id"
        return [Quarantined(*row) for row in self._run(query, [])]

    def release(self, name: str) -> None:
        self._run("delete from {s}.quarantine where projection = %s", [name])

    def step_rows(self, table: str | None = None, after: tuple[str, int] = ("", 0), limit: int = 500) -> list[StepRow]:
        query = self._named(
            "select job_id::text, step_number, status, sub_step_progress::text, error_message, {instant}(updated_at)"
            ' from {table} where (job_id::text collate "C", step_number) > (%s, %s)'
            ' order by job_id::text collate "C", step_number limit %s',
            table,
        )
        return [StepRow(*row) for row in self._run(query, [*after, limit])]

    def _put_row(self, run: Run, table: str | None, row: StepRow) -> None:
        update = self._named(
            "update {table} set status = %s, sub_step_progress = %s, error_message = %s, updated_at = %s"
            " where job_id = %s and step_number = %s returning true",
            table,
        )
        values = [row.status, row.sub_step_progress, row.error_message, row.updated_at, row.job_id, row.step_number]
        if run(update, values):
            return
        insert = self._named(
            "insert into {table} (status, sub_step_progress, error_message, updated_at, job_id, step_number)"
            " values (%s, %s, %s, %s, %s, %s)",
            table,
        )
        run(insert, values)

    def _named(self, text: Any, table: str | None) -> Any:
        """The statement with the table's quoted name: one of the user's own, or the store's."""
        names = table.split(".") if table else [self._schema, "registration_job_steps"]
        instant = sql.Identifier(self._schema, "instant")
        return sql.SQL(text).format(table=sql.Identifier(*names), instant=instant).as_string(None)


def _move(run: Run, move: Move) -> None:
    before, after = (None if value is None else _json(value) for value in move[1:])
    if before is None:
        moved = run(_BEGIN, [move.name, after])
    elif after is None:
        moved = run(_END, [move.name, before])
    else:
        moved = run(_GO_ON, [after, move.name, before])
    if not moved:
        raise _Late


def _document(row: Sequence[Any]) -> Document:
    key, version, text = row
    return Document(key, version, orjson.loads(text))


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
