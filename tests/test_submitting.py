"""Submitting: stored once by key, due when it is meant to be, together with the caller's own row, or many at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from pydantic import BaseModel

from steplog import InputRefused, PayloadRefused, SteplogError, Workflow
from steplog.engine.batches import cancel_batch, count_batch, pause_batch
from steplog.engine.errors import BatchNotFound, ValueRefused
from steplog.engine.history import load
from steplog.engine.submitting import Submission
from steplog.eventstore.errors import KeyConflict, StoreNotMigrated
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import HeadQuery, Store, WorkQuery


class Dish(BaseModel):
    name: str = "soup"


cooking = Workflow("cooking", input=Dish)
cooking.sub_step(name="cook")(lambda: "cooked")


def due(store: Store) -> list[str]:
    return [head.job_id for head in store.look_for_work(WorkQuery(["cooking"])).due]


def test_a_submitted_job_is_queued_due_and_nobodys(store: Store) -> None:
    job_id = cooking.submit(Dish(), store=store, tags={"house": "7"}, priority=3)
    head = store.head(job_id)
    assert (head.columns.status, head.columns.tags, head.columns.priority) == ("queued", {"house": "7"}, 3)
    assert (head.worker_id, due(store)) == (None, [job_id])


def test_the_same_key_and_input_is_the_same_job_and_another_input_is_refused(store: Store) -> None:
    job_id = cooking.submit(Dish(), store=store, key="monday")
    assert cooking.submit(Dish(), store=store, key="monday") == job_id
    with pytest.raises(KeyConflict) as refused:
        cooking.submit(Dish(name="stew"), store=store, key="monday")
    assert refused.value.job_id == job_id
    assert len(store.heads(HeadQuery())) == 1


def test_a_job_with_a_time_is_not_due_before_it(store: Store) -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    job_id = cooking.submit(Dish(), store=store, run_at=at)
    assert store.head(job_id).columns.wake_at == at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert due(store) == []


def test_what_cannot_be_submitted_leaves_no_trace(store: Store) -> None:
    with pytest.raises(InputRefused):
        cooking.submit({"name": 7}, store=store)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(ValueRefused, match="time zone"):
        cooking.submit(Dish(), store=store, run_at=datetime(2030, 1, 1))
    with pytest.raises(ValueRefused, match="priority"):
        cooking.submit(Dish(), store=store, priority=1 << 40)
    with pytest.raises(PayloadRefused):
        cooking.submit(Dish(), store=store, key="a\nb")
    with pytest.raises(PayloadRefused):
        cooking.submit(Dish(), store=store, tags={"house": 7})  # type: ignore[dict-item]  # what the test is about
    assert store.heads(HeadQuery()) == []


def test_a_job_submitted_in_the_callers_transaction_commits_with_its_row(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("create temporary table orders (id text)")
        connection.commit()
        connection.execute("insert into orders values ('given up')")
        cooking.submit(Dish(), connection=connection, schema=postgres_schema, key="given up")
        connection.rollback()
        assert postgres_store.heads(HeadQuery()) == []

        connection.execute("insert into orders values ('kept')")
        job_id = cooking.submit(Dish(), connection=connection, schema=postgres_schema, key="kept")
        assert postgres_store.heads(HeadQuery()) == []
        connection.commit()
        with pytest.raises(KeyConflict):
            cooking.submit(Dish(name="stew"), connection=connection, schema=postgres_schema, key="kept")
        assert connection.execute("select id from orders").fetchall() == [("kept",)]
    assert due(postgres_store) == [job_id]
    assert load(postgres_store, job_id).state["key"] == "kept"


def test_a_job_is_submitted_on_an_asynchronous_connection(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    async def submit() -> str:
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
            return await cooking.asubmit(Dish(), connection=connection, schema=postgres_schema)

    job_id = asyncio.run(submit())
    assert due(postgres_store) == [job_id]


def test_a_connection_to_a_database_without_a_log_is_refused(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection, pytest.raises(StoreNotMigrated):
        cooking.submit(Dish(), connection=connection, schema="no_such_schema")


def test_a_batch_is_stored_counted_paused_and_cancelled_as_one(store: Store) -> None:
    batch = cooking.submit_many((Dish(name=str(number)) for number in range(620)), store=store)
    assert len(set(batch.job_ids)) == 620
    assert count_batch(store, batch.batch_id).statuses == {"queued": 620}
    few = cooking.submit_many([Dish(), Submission(Dish(), key="k", priority=2)], store=store)
    paused = pause_batch(store, few.batch_id, by="anna")
    assert (paused.done, paused.left, count_batch(store, few.batch_id).statuses) == (2, 0, {"paused": 2})
    cancelled = cancel_batch(store, few.batch_id, by="anna", reason="rain")
    assert (cancelled.done, count_batch(store, few.batch_id).statuses) == (2, {"cancelled": 2})
    assert cancel_batch(store, few.batch_id, by="anna").left == 2
    with pytest.raises(BatchNotFound):
        pause_batch(store, "unknown", by="anna")


def test_a_named_batch_submitted_again_is_stored_once(store: Store) -> None:
    inputs = [Dish(name=str(number)) for number in range(3)]
    first = cooking.submit_many(inputs[:2], batch="menu", store=store)
    second = cooking.submit_many(inputs, batch="menu", store=store)
    assert second.job_ids[:2] == first.job_ids
    assert count_batch(store, "menu").statuses == {"queued": 3}
    with pytest.raises(SteplogError, match="another input"):
        cooking.submit_many([Dish(name="other")], batch="menu", store=store)
