"""A handler's transaction on PostgreSQL alone: settings, locks, connections that break, commits that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from append_witness import OwnedJob, owned_jobs
from message_proxy import MessageProxy, Point
from psycopg.conninfo import make_conninfo
from transactional_stores import effects, make_table, postgres_beside

from steplog import Retry, Step, Transaction, Workflow
from steplog.eventstore.errors import OutcomeUnknown, StatementFailed, StoreUnavailable
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import Code, HeadQuery, StoreTransaction

KILL_SELF = "select pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
def store(postgres_dsn: str, postgres_schema: str) -> Iterator[PostgresStore]:
    with closing(postgres_beside(postgres_dsn, postgres_schema, lock_timeout_s=0.1)) as store:
        store.migrate()
        make_table(store)
        yield store


@pytest.fixture
def job(store: PostgresStore) -> OwnedJob:
    (job,) = owned_jobs(store, 1)
    return job


@pytest.fixture
def transaction(store: PostgresStore) -> Iterator[StoreTransaction]:
    transaction = store.begin()
    yield transaction
    transaction.roll_back()


def setting(transaction: StoreTransaction, name: str) -> str:
    ((value,),) = transaction.execute("select current_setting(%s)", [name]).fetchall()
    return str(value)


def test_the_isolation_is_read_committed_whatever_the_database_has_by_default(
    postgres_dsn: str, postgres_schema: str, store: PostgresStore
) -> None:
    dsn = make_conninfo(postgres_dsn, options="-c default_transaction_isolation=serializable")
    with closing(PostgresStore(dsn, schema=postgres_schema)) as strict:
        transaction = strict.begin()
        assert setting(transaction, "transaction_isolation") == "read committed"
        with pytest.raises(StatementFailed, match="before any query"):
            transaction.execute("set transaction isolation level serializable")
        transaction.roll_back()


def test_the_server_gives_a_handler_up_that_nobody_is_there_to_stop(store: PostgresStore) -> None:
    transaction = store.begin(20)
    limits = [setting(transaction, name) for name in ("idle_in_transaction_session_timeout", "statement_timeout")]
    transaction.roll_back()
    assert limits == ["21s", "21s"]


def test_a_handler_cannot_make_its_commit_less_durable(transaction: StoreTransaction, job: OwnedJob) -> None:
    transaction.execute("set local synchronous_commit = off")
    transaction.execute("set local lock_timeout = 0")
    assert transaction.append(job.next("done")).code is Code.STORED
    assert setting(transaction, "synchronous_commit") == "on"
    assert setting(transaction, "lock_timeout") == "100ms"


def test_no_lock_on_the_job_is_held_before_the_append(
    transaction: StoreTransaction, job: OwnedJob, store: PostgresStore
) -> None:
    transaction.execute("insert into effects values ('menu')")
    assert store.append([job.next("sibling")])[0].code is Code.STORED


def test_a_head_that_stays_locked_is_busy_and_the_same_transaction_tries_again(
    transaction: StoreTransaction, job: OwnedJob, store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    item = job.next("done")
    transaction.execute("insert into effects values ('menu')")
    with psycopg.connect(postgres_dsn, options=f"-c search_path={postgres_schema}") as other:
        other.execute("select from jobs where job_id = %s for update", [job.id])
        assert [transaction.append(item).code for _ in range(2)] == [Code.BUSY, Code.BUSY]
    assert transaction.append(item).code is Code.STORED
    transaction.commit()
    assert effects(store) == ["menu"]
    assert store.head(job.id).version == 2


def test_a_commit_that_a_deferred_constraint_refuses_is_a_failure_of_the_handlers(
    transaction: StoreTransaction, job: OwnedJob, store: PostgresStore
) -> None:
    transaction.execute("create table once (name text unique deferrable initially deferred)")
    transaction.execute_many("insert into once values (%s)", [["menu"], ["menu"]])
    assert transaction.append(job.next("done")).code is Code.STORED
    with pytest.raises(StatementFailed, match="duplicate key") as failed:
        transaction.commit()
    assert failed.value.code == "23505"
    assert store.head(job.id).version == 1


def test_a_commit_that_the_server_answers_with_rollback_is_none(
    transaction: StoreTransaction, job: OwnedJob, store: PostgresStore
) -> None:
    assert transaction.append(job.next("done")).code is Code.STORED
    with pytest.raises(StatementFailed):
        transaction.execute("select nothing from nowhere")
    with pytest.raises(StatementFailed, match=r"nothing was committed.*nowhere"):
        transaction.commit()
    assert store.head(job.id).version == 1


def test_a_connection_that_breaks_inside_is_the_stores_fault_not_the_statements(
    transaction: StoreTransaction, job: OwnedJob
) -> None:
    with pytest.raises(StoreUnavailable, match="broke inside the transaction"):
        transaction.execute(KILL_SELF)
    assert transaction.is_lost
    with pytest.raises(StoreUnavailable):
        transaction.append(job.next("done"))


def test_connections_that_break_under_a_handler_do_not_use_up_its_retries(store: PostgresStore) -> None:
    wf = Workflow("broken")

    @wf.sub_step
    def book(step: Step, tx: Transaction) -> None:
        tx.execute("insert into effects values (%s)", [f"attempt {step.attempt}"])
        if step.attempt < 3:
            tx.execute(KILL_SELF)

    job = wf.run(store=store)

    assert (job.status, effects(store)) == ("completed", ["attempt 3"])


def test_a_handler_whose_connection_breaks_every_time_fails_in_the_end(store: PostgresStore) -> None:
    wf = Workflow("always broken")

    @wf.sub_step(retry=Retry(attempts=2, wait=0))
    def book(tx: Transaction) -> None:
        tx.execute(KILL_SELF)

    job = wf.run(store=store)

    types = [event.type for event in store.read(job.job_id)]
    assert (job.status, types.count("SubStepInterrupted"), types.count("SubStepFailed")) == ("failed", 3, 2)


@pytest.mark.parametrize(
    ("action", "every"),
    [
        ("cut", 1),
        *((action, 5) for action in ("reset", "half-close")),
        *(pytest.param(action, 1, marks=pytest.mark.heavy) for action in ("reset", "half-close")),
    ],
)
def test_a_transactional_sub_step_whose_connection_breaks_at_any_message_has_its_effect_once(
    postgres_dsn: str, postgres_schema: str, store: PostgresStore, action: str, every: int
) -> None:
    """From the begin to the answer of the commit, wherever the client or the server had got to."""
    wf = Workflow("cut")

    @wf.sub_step(retry=Retry(attempts=9, wait=0, jitter=0))
    def book(step: Step, tx: Transaction) -> None:
        if arming:
            proxy.arm(arming.pop(), action)  # type: ignore[arg-type]  # the parameters are the actions
        tx.execute("insert into effects values (%s)", [step.job_id])

    arming: list[Point | None] = [None]
    with (
        MessageProxy(postgres_dsn) as proxy,
        closing(postgres_beside(proxy.dsn, postgres_schema)) as far,
    ):
        wf.run(store=far)
        sent = {side: sum(seen.side == side for seen in proxy.seen) for side in ("client", "server")}
        points = [
            Point(side, number, when)  # type: ignore[arg-type]  # the literals above
            for side in sent
            for number in range(1, sent[side] + 1)
            for when in ("before", "after")
        ][::every]
        for point in points:
            arming.append(point)
            assert wf.run(store=far).status == "completed"
    jobs = [head.job_id for head in store.heads(HeadQuery(limit=1000))]
    assert sorted(effects(store)) == sorted(jobs)
    assert len(jobs) == len(points) + 1
    for job_id in jobs:
        assert [event.type for event in store.read(job_id)].count("SubStepCompleted") == 1


def test_a_commit_whose_answer_is_lost_is_unknown(
    postgres_dsn: str, postgres_schema: str, store: PostgresStore, job: OwnedJob
) -> None:
    with MessageProxy(postgres_dsn) as proxy, closing(postgres_beside(proxy.dsn, postgres_schema)) as far:
        for number in range(2):
            transaction = far.begin()
            item = job.next(number)
            assert transaction.append(item).code is (Code.STORED if number == 0 else Code.CONFLICT)
            if number == 0:
                proxy.arm(Point("server", 1, "before"))
                with pytest.raises(OutcomeUnknown):
                    transaction.commit()
            transaction.roll_back()
    assert store.head(job.id).version == 2
