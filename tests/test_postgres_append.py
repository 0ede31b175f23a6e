"""The owner's append on PostgreSQL: what it answers when connections, locks and servers get in its way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from log_builder import LogBuilder, after
from psycopg import sql

from steplog.eventstore import postgres_tables as tables
from steplog.eventstore.chain import Position
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import OutcomeUnknown, StoreError
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import Append, Claim, Code

PROBES_S_MAX = 30

Watcher = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def build() -> LogBuilder:
    return LogBuilder(SystemClock())


@contextmanager
def watching(dsn: str, schema: str) -> Iterator[Watcher]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("set search_path to {}").format(sql.Identifier(schema)))
        yield connection


@pytest.fixture
def watcher(postgres_dsn: str, postgres_schema: str) -> Iterator[Watcher]:
    """Another connection to the tests' schema, which commits by itself."""
    with watching(postgres_dsn, postgres_schema) as connection:
        yield connection


@pytest.fixture
def first_store(postgres_dsn: str, new_schema: str) -> Iterator[PostgresStore]:
    """The first to use its schema, so that the server has counted nothing there yet."""
    with closing(PostgresStore(postgres_dsn, schema=new_schema)) as store:
        store.migrate()
        yield store


class Owned:
    """A job that a worker of the test owns."""

    def __init__(self, store: PostgresStore, build: LogBuilder) -> None:
        worker = build.worker()
        store.register_worker(worker, 60)
        self.claim = Claim(worker.worker_id, 1, "claim")
        self.job = build.job(claim=self.claim)
        self.id = store.create(self.job)
        self.build = build
        self.end: Position = store.head(self.id).position

    def next(self, *values: object) -> Append:
        return self.build.append(self.id, self.end, self.claim, *values)


@pytest.fixture
def first_watcher(postgres_dsn: str, new_schema: str) -> Iterator[Watcher]:
    with watching(postgres_dsn, new_schema) as connection:
        yield connection


@contextmanager
def in_background(call: Callable[[], Any]) -> Iterator[Future[Any]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


def backend_waiting(watcher: Watcher, event_type: str, event: str | None = None) -> int:
    """The pid of the backend in `append` once it waits for that."""
    deadline = time.monotonic() + PROBES_S_MAX
    while time.monotonic() < deadline:
        found = watcher.execute(
            "select pid from pg_stat_activity where application_name = 'steplog' and pid <> pg_backend_pid()"
            " and query like '%%append%%(%%' and wait_event_type = %s and wait_event = coalesce(%s, wait_event)",
            [event_type, event],
        ).fetchone()
        if found:
            return int(found[0])
    raise AssertionError(f"no backend waits for {event_type}")


def test_a_connection_lost_before_the_commit_leaves_the_outcome_unknown_and_the_resend_stores(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str, watcher: Watcher, build: LogBuilder
) -> None:
    owned = Owned(postgres_store, build)
    item = owned.next("a", "b")
    with psycopg.connect(postgres_dsn) as blocker:
        blocker.execute(sql.SQL("lock table {} in exclusive mode").format(sql.Identifier(postgres_schema, "events")))
        with in_background(lambda: postgres_store.append([item])) as first:
            watcher.execute("select pg_terminate_backend(%s)", [backend_waiting(watcher, "Lock")])
            with pytest.raises(OutcomeUnknown):
                first.result(PROBES_S_MAX)
        blocker.rollback()

    assert postgres_store.head(owned.id).version == 1
    assert [answer.code for answer in postgres_store.append([item])] == [Code.STORED]
    assert [answer.code for answer in postgres_store.append([item])] == [Code.STORED]
    assert [event.version for event in postgres_store.read(owned.id)] == [1, 2, 3]


@pytest.fixture
def absent_standby(watcher: Watcher) -> Iterator[None]:
    """Commits wait for a standby that does not exist."""
    if watcher.execute("show is_superuser").fetchone() != ("on",):
        pytest.skip("this server's settings are not ours to change")

    def set_standby(name: str) -> None:
        watcher.execute(sql.SQL("alter system set synchronous_standby_names = {}").format(name))
        watcher.execute("select pg_reload_conf()")
        deadline = time.monotonic() + PROBES_S_MAX
        while watcher.execute("show synchronous_standby_names").fetchone() != (name,):
            assert time.monotonic() < deadline

    set_standby("nobody")
    yield
    set_standby("")


@pytest.mark.parametrize("end", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_commit_that_was_applied_but_not_replicated_is_not_acknowledged(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder, request: pytest.FixtureRequest, end: str
) -> None:
    owned = Owned(postgres_store, build)
    item = owned.next("a")
    request.getfixturevalue("absent_standby")

    for _ in ("first", "again: stored before, and still on no standby"):
        with in_background(lambda: postgres_store.append([item])) as sent:
            waiting = backend_waiting(watcher, "IPC", "SyncRep")
            watcher.execute(sql.SQL("select {}({})").format(sql.Identifier(end), waiting))
            with pytest.raises(OutcomeUnknown):
                sent.result(PROBES_S_MAX)
        assert postgres_store.head(owned.id).version == 2


def test_the_resend_of_what_was_applied_answers_stored_and_stores_nothing(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder, request: pytest.FixtureRequest
) -> None:
    owned = Owned(postgres_store, build)
    item = owned.next("a")
    postgres_store.append([item])
    watcher.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'steplog'")

    with pytest.raises(OutcomeUnknown):
        postgres_store.append([item])
    (answer,) = postgres_store.append([item])

    assert (answer.code, answer.version) == (Code.STORED, 2)
    assert len(list(postgres_store.read(owned.id))) == 2


def test_a_reader_whose_connection_went_stale_reads_on(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder
) -> None:
    owned = Owned(postgres_store, build)
    watcher.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'steplog'")

    assert postgres_store.head(owned.id).version == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_answers_that_do_not_belong_to_the_batch_are_no_acknowledgement(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder, jobs: int
) -> None:
    owned = [Owned(postgres_store, build) for _ in range(jobs)]
    watcher.execute(
        "create or replace function append(job_ids uuid[], expected_versions bigint[], expected_hashes text[],"
        " epochs bigint[], claim_ids text[], releases boolean[], heads json, new_events json)"
        " returns table (job_id uuid, code text, version bigint) language sql"
        " as 'select gen_random_uuid(), ''stored'', 2::bigint union all select job_ids[1], ''stored'', 2::bigint'"
    )
    watcher.execute(
        "create or replace function append_one(job uuid, expected_version bigint, expected_hash text, of_epoch bigint,"
        " of_claim text, release boolean, new_head json, new_events json) returns json language sql"
        " as 'select json_build_array(gen_random_uuid(), ''stored'', 2)'"
    )

    with pytest.raises(OutcomeUnknown):
        postgres_store.append([job.next("a") for job in owned])


def test_a_locked_head_is_answered_busy_and_its_neighbours_are_stored_meanwhile(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str, build: LogBuilder
) -> None:
    held, free = Owned(postgres_store, build), Owned(postgres_store, build)
    jobs = sql.Identifier(postgres_schema, "jobs")
    # The server ends the stopped transaction in the end, so that an append that waits for it fails here.
    with psycopg.connect(postgres_dsn, options="-c idle_in_transaction_session_timeout=10s") as stopped:
        stopped.execute(sql.SQL("select from {} where job_id = %s for no key update").format(jobs), [held.id])
        answers = postgres_store.append([held.next("a"), free.next("b")])
        stopped.rollback()

    assert [answer.code for answer in answers] == [Code.BUSY, Code.STORED]
    assert (postgres_store.head(held.id).version, postgres_store.head(free.id).version) == (1, 2)


def test_an_append_alone_waits_for_a_head_that_is_locked_for_a_moment(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str, watcher: Watcher, build: LogBuilder
) -> None:
    owned = Owned(postgres_store, build)
    jobs = sql.Identifier(postgres_schema, "jobs")
    with psycopg.connect(postgres_dsn) as holder:
        holder.execute(sql.SQL("select from {} where job_id = %s for no key update").format(jobs), [owned.id])
        with in_background(lambda: postgres_store.append_waiting(owned.next("a"))) as sent:
            deadline = time.monotonic() + PROBES_S_MAX
            while not watcher.execute("select from pg_locks where not granted").rowcount:
                assert time.monotonic() < deadline
            holder.rollback()
            answer = sent.result(PROBES_S_MAX)

    assert answer.code is Code.STORED


def test_an_append_alone_does_not_wait_for_ever(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str, build: LogBuilder
) -> None:
    owned = Owned(postgres_store, build)
    impatient = PostgresStore(postgres_dsn, schema=postgres_schema, lock_timeout_s=0.05)
    jobs = sql.Identifier(postgres_schema, "jobs")
    with psycopg.connect(postgres_dsn) as holder:
        holder.execute(sql.SQL("select from {} where job_id = %s for no key update").format(jobs), [owned.id])
        assert impatient.append_waiting(owned.next("a")).code is Code.BUSY
    impatient.close()


def test_payloads_are_stored_as_the_bytes_they_are(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder
) -> None:
    owned = Owned(postgres_store, build)
    item = owned.next({"b": 1.0, "a": 'é\x01"\\/\U0001f600 \u2028', "big": 2**64 - 1, "tiny": 5e-324})
    postgres_store.append([item])

    stored = watcher.execute("select data::text from events where job_id = %s and version = 2", [owned.id]).fetchone()
    assert stored == (item.events[0].payload.decode(),)
    assert next(postgres_store.read(owned.id, after=1)).data["set"]["value"]["big"] == 2**64 - 1


def test_one_append_is_one_statement_and_one_transaction(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder
) -> None:
    jobs = [Owned(postgres_store, build) for _ in range(3)]
    postgres_store.append([job.next("first") for job in jobs])
    for job in jobs:
        job.end = postgres_store.head(job.id).position

    before = watcher.execute("select pg_current_xact_id()::text::bigint").fetchone()
    postgres_store.append([job.next("second") for job in jobs])
    then = watcher.execute("select pg_current_xact_id()::text::bigint").fetchone()

    assert before
    assert then
    assert then[0] - before[0] == 2


def test_a_distributed_database_gets_a_call_and_a_transaction_for_each_job(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not tables.is_distributed(postgres_store._read)
    monkeypatch.setattr(tables, "is_distributed", lambda run: True)
    jobs = [Owned(postgres_store, build) for _ in range(3)]

    before = watcher.execute("select pg_current_xact_id()::text::bigint").fetchone()
    answers = postgres_store.append([job.next("a") for job in jobs])
    then = watcher.execute("select pg_current_xact_id()::text::bigint").fetchone()

    assert [answer.code for answer in answers] == [Code.STORED] * 3
    assert before
    assert then
    assert then[0] - before[0] == 4


@pytest.mark.parametrize("change", ["update events set type = 'x'", "delete from events", "truncate events"])
def test_events_are_append_only(
    postgres_store: PostgresStore, watcher: Watcher, build: LogBuilder, change: str
) -> None:
    owned = Owned(postgres_store, build)

    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        watcher.execute(change.encode())
    assert len(list(postgres_store.read(owned.id))) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_append_reads_full_tables_by_index_with_plans_cached_while_they_were_empty(
    first_store: PostgresStore, first_watcher: Watcher, build: LogBuilder, jobs: int
) -> None:
    owned = [Owned(first_store, build) for _ in range(jobs)]
    first = [job.next("a") for job in owned]
    # PostgreSQL keeps the plan of a statement for good at its sixth run.
    for _ in range(6):
        first_store.append(first)
    first_watcher.execute(
        "insert into jobs select (json_populate_record(jobs, json_build_object('job_id', gen_random_uuid()))).*"
        " from jobs, generate_series(1, 5000)"
    )
    first_watcher.execute(
        "insert into events (job_id, version, event_id, type, schema_version, recorded_at, data, hash)"
        " select gen_random_uuid(), version, event_id, type, schema_version, recorded_at, data, hash"
        " from events, generate_series(1, 5000)"
    )
    again, late = (
        [build.append(job.id, after(item), job.claim, value) for job, item in zip(owned, first, strict=True)]
        for value in ("b", "c")
    )

    first_store.append(again)
    codes = [{answer.code for answer in first_store.append(batch)} for batch in (again, late)]
    # A backend reports what it has read at the latest when it ends.
    first_store.close()
    deadline = time.monotonic() + PROBES_S_MAX
    while first_watcher.execute("select from pg_stat_activity where application_name = 'steplog'").rowcount:
        assert time.monotonic() < deadline
    rows_read = first_watcher.execute(
        "select max(seq_tup_read), max(idx_tup_fetch) from pg_stat_user_tables"
        " where schemaname = current_schema() and relname in ('jobs', 'events')"
    ).fetchone()

    assert codes == [{Code.STORED}, {Code.CONFLICT}]
    assert rows_read
    assert max(rows_read) < 100


def test_an_append_with_an_event_the_database_refuses_stores_nothing_of_the_batch(
    postgres_store: PostgresStore, build: LogBuilder
) -> None:
    good, bad = Owned(postgres_store, build), Owned(postgres_store, build)
    item = bad.next("a")
    broken = item._replace(events=[item.events[0]._replace(event_id="no id")])

    with pytest.raises(StoreError):
        postgres_store.append([good.next("b"), broken])
    assert (postgres_store.head(good.id).version, postgres_store.head(bad.id).version) == (1, 1)


def test_the_server_ends_a_transaction_whose_client_says_nothing(postgres_store: PostgresStore) -> None:
    setting = "select current_setting('idle_in_transaction_session_timeout')"
    assert postgres_store._connections.transaction(lambda run: run(setting, [])) == [("25s",)]
