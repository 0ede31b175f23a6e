"""Behind a transaction pooler: connections change hands at every commit, and nothing may rest on one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from append_witness import KNOWN_S_MAX, OwnedJob, Witness, append_one, owned_jobs
from log_builder import LogBuilder
from pooler import find_pgbouncer, pooled
from witness_figures import Show, skip_untested

from steplog.eventstore.chain import Position
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import HeadQuery
from steplog.eventstore.writer import Writer

pytestmark = pytest.mark.heavy
"""pgbouncer is not on every machine: `make test-all` fetches it."""

WRITERS = 8
POOL = 3


@pytest.fixture(scope="module")
def pgbouncer() -> Path:
    found = find_pgbouncer()
    if found is None:
        skip_untested("BEHIND A POOLER", "there is no pgbouncer; `make pgbouncer` fetches Debian's")
    return found


@pytest.fixture(scope="module")
def through(pgbouncer: Path, postgres_dsn: str) -> Iterator[str]:
    with pooled(pgbouncer, postgres_dsn, pool=POOL) as dsn:
        yield dsn


@pytest.mark.parametrize("appends", [480, 50_000])
def test_appends_of_many_writers_through_a_few_connections_are_stored_once(
    through: str, postgres_store: PostgresStore, postgres_schema: str, appends: int, show: Show
) -> None:
    """Mutants: prepared statements (answers of another's statement); session locks; what came back is not checked."""
    witness, jobs = Witness(), owned_jobs(postgres_store, WRITERS)

    def append(job: OwnedJob) -> None:
        with closing(PostgresStore(through, schema=postgres_schema)) as store, closing(Writer(store)) as writer:
            for value in range(appends // WRITERS):
                append_one(writer, job, witness, value)

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(append, jobs, timeout=KNOWN_S_MAX * 20):
            pass
    figures = witness.figures(postgres_store, jobs)
    show(f"{appends} appends of {WRITERS} writers through a pool of {POOL}", figures)
    assert (figures.acknowledged, figures.stored, figures.lost, figures.doubled) == (appends, appends, 0, 0)


def test_the_server_behind_the_pooler_has_no_more_connections_than_the_pool(
    through: str, postgres_dsn: str, postgres_store: PostgresStore, postgres_schema: str
) -> None:
    """What shows that the pooler is in transaction mode, and the test above means something."""
    stores = [PostgresStore(through, schema=postgres_schema) for _ in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        pids = set(pool.map(lambda store: store._read("select pg_backend_pid()", [])[0][0], stores))
        for store in stores:
            store.close()
    assert len(pids) <= POOL
    with psycopg.connect(postgres_dsn) as watcher:
        assert watcher.execute("select from pg_stat_activity where pid = any(%s)", [list(pids)]).rowcount == len(pids)


def test_every_call_of_the_store_works_through_the_pooler(through: str, postgres_schema: str) -> None:
    build = LogBuilder(SystemClock())
    with closing(PostgresStore(through, schema=postgres_schema)) as store:
        store.migrate()
        worker, job = build.worker(), build.job(key="k")
        store.register_worker(worker, 60)
        assert store.create(job) == store.create(job) == job.job_id
        claim = store.claim(job.job_id, worker.worker_id, Position(), build.claiming())
        item = build.append(job.job_id, store.head(job.job_id).position, claim, "a")
        assert store.append_waiting(item).version == 3
        assert store.append_locked(job.job_id, Position(), build.proposing(), request_id="r") == 3
        assert store.beat(worker.worker_id, 60).jobs == {job.job_id: (3, claim.epoch)}
        assert [head.job_id for head in store.heads(HeadQuery())] == store.job_of_key(None, "k") == [job.job_id]
        assert [event.version for event in store.read(job.job_id)] == [1, 2, 3]
        store.retire_worker(worker.worker_id)
