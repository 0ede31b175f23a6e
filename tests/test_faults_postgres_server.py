"""The server restarts without a word, and its processes are ended, under owners that append: the witness's figures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count

import psycopg
import pytest
from append_witness import Figures, Witness, owned_jobs, steady_load
from postgres_cluster import Cluster
from psycopg.conninfo import make_conninfo
from witness_figures import Show

from steplog.eventstore.postgres import PostgresStore

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
