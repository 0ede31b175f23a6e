"""A new job inside a transaction of the caller's own, on his own connection to the same database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from steplog.eventstore.data_keys import DataKey
from steplog.eventstore.errors import KeyConflict, StoreNotMigrated
from steplog.eventstore.postgres_data_keys import ADD, KEY
from steplog.eventstore.postgres_documents import job_document
from steplog.eventstore.store import NewJob

_CREATE_JOB: LiteralString = "select code, job_id::text from {s}.create_job(%s)"
Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

_MISSING = (errors.UndefinedFunction, errors.InvalidSchemaName)


def create_inside(connection: Connection, job: NewJob, schema: str) -> str:
    """The id of the job, or of the one that has its key. It is there if and when the caller commits.

    Raises KeyConflict, which leaves the transaction as it was, StoreNotMigrated, and the driver's own errors.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        try:
            cursor.execute(_in(schema, _CREATE_JOB), [job_document(job)])
        except _MISSING as error:
            raise _not_migrated(schema) from error
        job_id = _created(job, cursor.fetchall())
        if job.data_key is not None and job_id == job.job_id:
            cursor.execute(_in(schema, ADD), [job.job_id, job.data_key])
        return job_id


async def acreate_inside(connection: AsyncConnection, job: NewJob, schema: str) -> str:
    """The same on an asynchronous connection."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        try:
            await cursor.execute(_in(schema, _CREATE_JOB), [job_document(job)])
        except _MISSING as error:
            raise _not_migrated(schema) from error
        job_id = _created(job, await cursor.fetchall())
        if job.data_key is not None and job_id == job.job_id:
            await cursor.execute(_in(schema, ADD), [job.job_id, job.data_key])
        return job_id


def data_key_inside(connection: Connection, job_id: str, schema: str) -> DataKey | None:
    """The data key of a job that is there."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_in(schema, KEY), [job_id]).fetchone()
        return DataKey(*row) if row else None


async def adata_key_inside(connection: AsyncConnection, job_id: str, schema: str) -> DataKey | None:
    """The same on an asynchronous connection."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        row = await (await cursor.execute(_in(schema, KEY), [job_id])).fetchone()
        return DataKey(*row) if row else None


def _in(schema: str, statement: LiteralString) -> sql.Composed:
    return sql.SQL(statement).format(s=sql.Identifier(schema))


def _created(job: NewJob, rows: Sequence[tuple[Any, ...]]) -> str:
    ((code, job_id),) = rows
    if code == "key conflict":
        raise KeyConflict(job.columns.workflow, job.columns.key or "", job_id)
    return str(job_id)


def _not_migrated(schema: str) -> StoreNotMigrated:
    return StoreNotMigrated(f"there is no log in schema {schema} of this connection's database")
