"""The PostgreSQL store beyond the common contract: its schema, its rights, its leases, what it refuses to work on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from log_builder import LogBuilder
from psycopg import sql
from psycopg.conninfo import make_conninfo

from steplog.eventstore.chain import Position
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import (
    JobNotFound,
    JobOwned,
    StoreError,
    StoreNewer,
    StoreNotMigrated,
    StoreUnavailable,
    WorkerDead,
)
from steplog.eventstore.migrations import known_migrations
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.process_identity import own_identity
from steplog.eventstore.store import Claim, HeadQuery

OpenStore = Callable[..., PostgresStore]
Admin = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def build() -> LogBuilder:
    return LogBuilder(SystemClock())


@pytest.fixture
def postgres_schema(new_schema: str) -> str:
    """Not made yet: how it is made is a subject of this file."""
    return new_schema


@pytest.fixture
def postgres_store(postgres_dsn: str, postgres_schema: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_dsn, schema=postgres_schema)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def open_store(postgres_dsn: str, postgres_schema: str) -> Iterator[OpenStore]:
    """Opens further stores on the test's schema and closes them."""
    opened: list[PostgresStore] = []

    def open(**parameters: Any) -> PostgresStore:
        opened.append(PostgresStore(make_conninfo(postgres_dsn, **parameters), schema=postgres_schema))
        return opened[-1]

    yield open
    for store in opened:
        store.close()


@pytest.fixture
def admin(postgres_dsn: str, postgres_schema: str) -> Iterator[Admin]:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("set search_path to {}").format(sql.Identifier(postgres_schema)))
        yield connection


# --- the schema ------------------------------------------------------------------------------------------------------


def test_a_schema_that_is_missing_is_named(open_store: OpenStore) -> None:
    with pytest.raises(StoreNotMigrated, match="0001_tables"):
        open_store().now()


def test_a_dry_run_names_the_migrations_and_makes_nothing(open_store: OpenStore, admin: Admin) -> None:
    store = open_store()
    titles = [migration.title for migration in known_migrations("postgres")]

    assert store.migrate(dry_run=True) == titles
    assert admin.execute("select current_schema()").fetchone() == (None,)
    assert store.migrate() == titles
    assert store.migrate() == []


def test_migrators_at_once_apply_each_migration_once(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(3)]

    with ThreadPoolExecutor(len(stores)) as pool:
        applied = list(pool.map(PostgresStore.migrate, stores))

    assert sorted(map(len, applied)) == [0, 0, len(known_migrations("postgres"))]


def test_a_schema_that_lacks_a_migration_is_refused(open_store: OpenStore, admin: Admin) -> None:
    open_store().migrate()
    admin.execute("delete from schema_migrations where number = (select max(number) from schema_migrations)")

    with pytest.raises(StoreNotMigrated, match="lacks 1 migration"):
        open_store().now()


def test_a_schema_of_a_newer_steplog_is_refused(open_store: OpenStore, admin: Admin) -> None:
    open_store().migrate()
    admin.execute("insert into schema_migrations (number, name, checksum) values (9999, 'future', '')")

    with pytest.raises(StoreNewer, match="9999_future"):
        open_store().now()
    with pytest.raises(StoreNewer):
        open_store().migrate()


def test_a_schema_may_have_any_name(postgres_dsn: str, postgres_schema: str, build: LogBuilder) -> None:
    name = f'{postgres_schema}"; drop schema x; --'
    store = PostgresStore(postgres_dsn, schema=name)
    store.migrate()
    try:
        job_id = store.create(build.job(key="k"))
        assert store.job_of_key("registration", "k") == [job_id]
        assert len(list(store.read(job_id))) == 1
    finally:
        store.close()
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("set client_min_messages = warning")
            connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))


def test_functions_are_deaf_to_the_callers_search_path(
    postgres_store: PostgresStore, admin: Admin, build: LogBuilder, open_store: OpenStore
) -> None:
    store = open_store(options="-c search_path=pg_catalog")

    assert len(list(store.read(store.create(build.job())))) == 1


# --- rights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def may_create_roles(admin: Admin) -> None:
    if admin.execute("select rolcreaterole or rolsuper from pg_roles where rolname = current_user").fetchone() != (
        True,
    ):
        pytest.skip("this server's roles are not ours to create")


@pytest.mark.usefixtures("may_create_roles")
def test_the_app_role_works_and_changes_no_event(
    postgres_store: PostgresStore, open_store: OpenStore, admin: Admin, build: LogBuilder
) -> None:
    store = open_store(options="-c role=steplog_app")
    worker = build.worker()
    store.register_worker(worker, 60)
    job = build.job(key="k")
    store.create(job)
    claim = store.claim(job.job_id, worker.worker_id, Position(), build.claiming())
    store.append([build.append(job.job_id, store.head(job.job_id).position, claim, "a", release=True)])
    store.append_locked(job.job_id, Position(), build.proposing(), request_id="r")
    store.beat(worker.worker_id, 60)
    store.retire_worker(worker.worker_id)

    admin.execute("set role steplog_app")
    for forbidden in (
        "update events set type = 'x'",
        "delete from events",
        "truncate events",
        "delete from jobs",
        "alter table events disable trigger all",
        "drop table events",
        "create table mine ()",
        "delete from schema_migrations",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            admin.execute(forbidden.encode())
    assert len(list(store.read(job.job_id))) == 3


@pytest.mark.usefixtures("may_create_roles")
def test_the_reader_role_reads_and_writes_nothing(
    postgres_store: PostgresStore, open_store: OpenStore, build: LogBuilder
) -> None:
    job_id = postgres_store.create(build.job())
    reader = open_store(options="-c role=steplog_reader")

    assert [head.job_id for head in reader.heads(HeadQuery())] == [job_id]
    assert len(list(reader.read(job_id))) == 1
    with pytest.raises(StoreError, match="permission denied"):
        reader.create(build.job())


@pytest.mark.usefixtures("may_create_roles")
def test_where_roles_cannot_be_created_the_schema_comes_without_them(
    postgres_dsn: str, postgres_schema: str, admin: Admin, build: LogBuilder
) -> None:
    role = sql.Identifier(f"{postgres_schema}_plain")
    admin.execute(sql.SQL("create role {}").format(role))
    admin.execute(sql.SQL("create schema {} authorization {}").format(sql.Identifier(postgres_schema), role))
    dsn = make_conninfo(postgres_dsn, options=f"-c role={postgres_schema}_plain")
    store = PostgresStore(dsn, schema=postgres_schema)
    try:
        store.migrate()
        assert len(list(store.read(store.create(build.job())))) == 1
    finally:
        store.close()
        admin.execute("set client_min_messages = warning")
        admin.execute(sql.SQL("drop owned by {} cascade").format(role))
        admin.execute(sql.SQL("drop role {}").format(role))


# --- what it does not work on ----------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        PostgresStore(f"host={tmp_path} dbname=none").now()


def test_a_server_that_acknowledges_before_it_is_durable_is_refused(
    postgres_store: PostgresStore, open_store: OpenStore
) -> None:
    with pytest.raises(StoreError, match="synchronous_commit is off"):
        open_store(options="-c synchronous_commit=off").now()


def test_a_closed_store_says_so(postgres_store: PostgresStore) -> None:
    postgres_store.now()
    postgres_store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        postgres_store.now()


@pytest.mark.parametrize("job", ["", "nonsense", "' or true --", "\ud800", "a\x00b", "A1B2" * 8])
def test_an_id_that_no_job_can_have_is_not_found(postgres_store: PostgresStore, job: str) -> None:
    with pytest.raises(JobNotFound):
        postgres_store.head(job)


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"])
def test_text_that_postgresql_cannot_hold_is_a_typed_error(postgres_store: PostgresStore, text: str) -> None:
    with pytest.raises(StoreError):
        postgres_store.heads(HeadQuery(workflow=text))
    assert postgres_store.heads(HeadQuery()) == []


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("postgresql://ann:secret@db:5433/jobs", "postgresql://ann:***@db:5433/jobs"),
        ("postgresql://ann@db/jobs?password=secret&sslmode=require", "postgresql://ann:***@db/jobs?sslmode=require"),
        ("host=/run/pg user=ann dbname=jobs sslpassword=secret", "postgresql://ann:***@/jobs?host=/run/pg"),
        ("postgresql:///jobs", "postgresql:///jobs"),
    ],
)
def test_the_url_shows_no_password(dsn: str, url: str) -> None:
    assert PostgresStore(dsn).url == url


def test_an_address_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        PostgresStore("postgresql://ann:secret@db/jobs?nonsense=1")
    assert "secret" not in str(refused.value)


# --- leases ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def owned(postgres_store: PostgresStore, build: LogBuilder) -> str:
    """A job owned by a worker `owner` of another machine."""
    postgres_store.register_worker(build.worker("owner"), 60)
    postgres_store.register_worker(own_identity("heir"), 60)
    return postgres_store.create(build.job(claim=Claim("owner", 1, "claim")))


def expire(admin: Admin, worker_id: str) -> None:
    admin.execute("update workers set expires_at = now() - interval '1 ms' where worker_id = %s", [worker_id])


def test_a_job_whose_owner_has_a_lease_is_refused_with_who_and_until_when(
    postgres_store: PostgresStore, owned: str, build: LogBuilder
) -> None:
    with pytest.raises(JobOwned) as refused:
        postgres_store.claim(owned, "heir", Position(), build.claiming())

    (owner,) = [worker for worker in postgres_store.workers() if worker.identity.worker_id == "owner"]
    assert (refused.value.worker_id, refused.value.until) == ("owner", owner.expires_at)
    assert "host, pid 4242" in str(refused.value)


def test_a_job_whose_owners_lease_is_over_is_taken_and_the_owner_learns_it(
    postgres_store: PostgresStore, owned: str, build: LogBuilder, admin: Admin
) -> None:
    expire(admin, "owner")

    claim = postgres_store.claim(owned, "heir", Position(), build.claiming())

    assert (claim.worker_id, claim.epoch) == ("heir", 2)
    with pytest.raises(WorkerDead):
        postgres_store.beat("owner", 60)


def test_a_lease_renewed_in_time_is_not_taken(
    postgres_store: PostgresStore, owned: str, build: LogBuilder, admin: Admin
) -> None:
    expire(admin, "owner")
    postgres_store.beat("owner", 60)

    with pytest.raises(JobOwned):
        postgres_store.claim(owned, "heir", Position(), build.claiming())


def test_a_take_over_whose_rule_refuses_leaves_the_owner_alive(
    postgres_store: PostgresStore, owned: str, admin: Admin
) -> None:
    def refuse(*_: object) -> Any:
        raise ValueError("this plan is not known here")

    expire(admin, "owner")
    with pytest.raises(ValueError, match="plan"):
        postgres_store.claim(owned, "heir", Position(), refuse)

    assert postgres_store.beat("owner", 60).jobs == {owned: (1, 1)}


def test_an_owner_on_this_machine_is_judged_by_its_process(
    postgres_store: PostgresStore, build: LogBuilder, admin: Admin
) -> None:
    postgres_store.register_worker(own_identity("owner"), 60)
    postgres_store.register_worker(own_identity("heir"), 60)
    job_id = postgres_store.create(build.job(claim=Claim("owner", 1, "claim")))
    with pytest.raises(JobOwned, match=socket.gethostname()):
        postgres_store.claim(job_id, "heir", Position(), build.claiming())

    # The process id has passed on to a younger process: the owner's own is gone.
    admin.execute("update workers set process_started = '1' where worker_id = 'owner'")

    assert postgres_store.claim(job_id, "heir", Position(), build.claiming()).epoch == 2
