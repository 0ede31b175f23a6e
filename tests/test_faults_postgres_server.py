"""The server restarts without a word, and its processes are ended, under owners that append: the witness's figures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count

import psycopg
import pytest
from append_witness import KNOWN_S_MAX, Figures, Witness, append_one, owned_jobs, steady_load
from log_builder import LogBuilder
from postgres_cluster import Cluster
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from witness_figures import Show

from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.writer import Writer

WRITERS = 8
_schemas = count(1)


@contextmanager
def opened(dsn: str, schema: str, number: int) -> Iterator[Sequence[PostgresStore]]:
    stores = [PostgresStore(dsn, schema=schema) for _ in range(number)]
    try:
        yield stores
    finally:
        for store in stores:
            store.close()


def assert_nothing_lost(figures: Figures) -> None:
    assert (figures.lost, figures.doubled) == (0, 0)
    assert figures.acknowledged <= figures.stored
    assert figures.unknown, "no append met a fault"


@pytest.mark.parametrize("restarts", [3, pytest.param(25, marks=pytest.mark.heavy)])
def test_immediate_restarts_lose_and_double_nothing(own_cluster: Cluster, restarts: int, show: Show) -> None:
    """Mutants: an error on commit counts as failed, and the facts are sent under new ids; or it counts as stored."""
    schema = f"restarts_{os.getpid()}_{next(_schemas)}"
    witness = Witness()
    with closing(PostgresStore(own_cluster.dsn, schema=schema)) as store:
        store.migrate()
        jobs = owned_jobs(store, WRITERS)
        with opened(own_cluster.dsn, schema, WRITERS) as stores, steady_load(stores, jobs, witness):
            for _ in range(restarts):
                witness.await_acknowledged(2 * WRITERS)
                own_cluster.restart_immediately()
            witness.await_acknowledged(2 * WRITERS)
        figures = witness.figures(store, jobs)
    show(f"{restarts} immediate restarts under {WRITERS} writers", figures)
    assert_nothing_lost(figures)


@pytest.mark.parametrize("faults", [10, pytest.param(500, marks=pytest.mark.heavy)])
def test_terminated_and_cancelled_backends_lose_and_double_nothing(
    postgres_dsn: str, postgres_schema: str, postgres_store: PostgresStore, faults: int, show: Show
) -> None:
    """Mutants: as above; and a cancelled statement (57014) that counts as refused."""
    witness, jobs = Witness(), owned_jobs(postgres_store, WRITERS)
    name = f"victims of {postgres_schema}"
    victims = "from pg_stat_activity where application_name = %s and state = 'active' order by random() limit 1"
    with (
        psycopg.connect(postgres_dsn, autocommit=True) as disturber,
        opened(make_conninfo(postgres_dsn, application_name=name), postgres_schema, WRITERS) as stores,
        steady_load(stores, jobs, witness),
    ):
        done = 0
        while done < faults:
            witness.await_acknowledged(WRITERS)
            end = "pg_cancel_backend" if done % 2 else "pg_terminate_backend"
            done += disturber.execute(f"select {end}(pid) {victims}".encode(), [name]).rowcount
        witness.await_acknowledged(2 * WRITERS)
    figures = witness.figures(postgres_store, jobs)
    show(f"{faults} backends terminated or cancelled under {WRITERS} writers", figures)
    assert_nothing_lost(figures)


@pytest.fixture
def read_only(own_cluster: Cluster) -> Iterator[Callable[[], None]]:
    """What makes the test's own server refuse writes, as one does that is a standby now."""
    with psycopg.connect(own_cluster.dsn, autocommit=True) as admin:

        def set_read_only(value: str) -> None:
            admin.execute("set default_transaction_read_only = off")
            admin.execute(f"alter system set default_transaction_read_only = {value}".encode())
            admin.execute("select pg_reload_conf()")
            deadline = time.monotonic() + KNOWN_S_MAX
            while True:
                with psycopg.connect(own_cluster.dsn) as probe:
                    if probe.execute("show default_transaction_read_only").fetchone() == (value,):
                        return
                assert time.monotonic() < deadline

        yield lambda: set_read_only("on")
        set_read_only("off")


def test_a_server_that_only_reads_by_now_is_left_for_the_one_that_writes(
    own_cluster: Cluster,
    postgres_dsn: str,
    postgres_store: PostgresStore,
    postgres_schema: str,
    read_only: Callable[[], None],
) -> None:
    """Mutants: the connection is kept; the new one is made to whatever host answers first."""
    if "STEPLOG_TEST_DSN" in os.environ:
        pytest.skip("two servers of the tests' own are needed")
    hosts = ",".join(str(conninfo_to_dict(dsn)["host"]) for dsn in (own_cluster.dsn, postgres_dsn))
    with (
        closing(PostgresStore(own_cluster.dsn, schema=postgres_schema)) as first,
        closing(PostgresStore(make_conninfo(own_cluster.dsn, host=hosts), schema=postgres_schema)) as store,
        closing(Writer(store)) as writer,
    ):
        first.migrate()
        (on_first,) = owned_jobs(store, 1)
        append_one(writer, on_first, Witness(), "there")
        assert first.head(on_first.id).version == 2
        (on_second,) = owned_jobs(postgres_store, 1)
        read_only()

        append_one(writer, on_second, Witness(), "here")
        created = store.create(LogBuilder(SystemClock()).job())

    assert postgres_store.head(on_second.id).version == 2
    assert postgres_store.head(created).version == 1


def test_a_server_that_only_reads_and_is_the_only_one_is_waited_for(
    own_cluster: Cluster, new_schema: str, read_only: Callable[[], None]
) -> None:
    with closing(PostgresStore(own_cluster.dsn, schema=new_schema)) as store:
        store.migrate()
        (job,) = owned_jobs(store, 1)
        read_only()
        with pytest.raises(StoreUnavailable, match="cannot be written here"):
            store.append([job.next("a")])
        with pytest.raises(StoreUnavailable, match="cannot be written here"):
            store.create(LogBuilder(SystemClock()).job())
        assert store.head(job.id).version == 1
