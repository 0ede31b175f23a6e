"""Batches that want the same jobs, and a job whose head a stopped transaction holds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from append_witness import KNOWN_S_MAX, OwnedJob, Witness, append_one, owned_jobs
from message_proxy import MessageProxy, Point
from psycopg import sql
from witness_figures import Show

from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.events import Event
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import Code, Head, Proposal
from steplog.eventstore.writer import Writer

WRITERS = 3
BATCHES = 300
JOBS = 6


def deadlocks(dsn: str) -> int:
    """How many the server has counted; a session reports its own when it is idle."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        ((count,),) = connection.execute(
            "select deadlocks from pg_stat_database where datname = current_database()"
        ).fetchall()
        return int(count)


def test_overlapping_batches_of_three_writers_do_not_deadlock(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str, show: Show
) -> None:
    """Mutant: heads locked in the batch's order, waiting for each."""
    jobs = owned_jobs(postgres_store, JOBS)
    before = deadlocks(postgres_dsn)

    def send(number: int) -> list[Code]:
        order = jobs[number:] + jobs[:number] if number < 2 else jobs[::-1]
        codes: list[Code] = []
        with closing(PostgresStore(postgres_dsn, schema=postgres_schema)) as store:
            for value in range(BATCHES):
                if value % 10 == 0:
                    assert deadlocks(postgres_dsn) == before
                batch = [job.next(value)._replace(expected=job.end) for job in order]
                codes += [answer.code for answer in store.append(batch)]
        return codes

    with ThreadPoolExecutor(WRITERS) as pool:
        codes = [code for each in pool.map(send, range(WRITERS), timeout=4 * KNOWN_S_MAX) for code in each]

    counted = {code.value: codes.count(code) for code in set(codes)}
    show(f"{WRITERS * BATCHES} overlapping batches", f"{deadlocks(postgres_dsn) - before} deadlocks, answers {counted}")
    assert set(codes) <= {Code.STORED, Code.CONFLICT, Code.BUSY}
    assert codes.count(Code.STORED) == JOBS
    assert codes.count(Code.BUSY)
    assert deadlocks(postgres_dsn) == before
    assert all(len(list(postgres_store.read(job.id))) == 2 for job in jobs)


def test_nobody_waits_for_a_job_whose_head_a_stopped_transaction_holds(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    """Mutants: the batch waits for its locked member; the locked ones wait in one line behind the first."""
    held, *free = owned_jobs(postgres_store, 8)
    heads = sql.Identifier(postgres_schema, "jobs")
    witness = Witness()
    with (
        closing(PostgresStore(postgres_dsn, schema=postgres_schema, lock_timeout_s=3600)) as store,
        closing(Writer(store)) as writer,
        psycopg.connect(postgres_dsn) as stopped,
    ):
        stopped.execute(sql.SQL("select from {} where job_id = %s for no key update").format(heads), [held.id])
        promised = writer.append(held.next("held"))
        append_from_threads(writer, free, witness, times=10)
        assert not promised.done()
        assert witness.acknowledged == 10 * len(free)
        stopped.rollback()
        assert promised.result(KNOWN_S_MAX).code is Code.STORED


@pytest.mark.heavy
def test_a_head_that_is_held_across_a_lost_network_is_free_again_by_itself(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    """Both ends are silent and neither closes. Mutant: a transaction may stand idle, and its lock, for ever."""
    held, *free = owned_jobs(postgres_store, 4)
    witness = Witness()
    with ThreadPoolExecutor(1) as far_away, closing(Writer(postgres_store)) as writer:
        with MessageProxy(postgres_dsn) as proxy:

            def lose_the_network(head: Head, tail: Sequence[Event]) -> Proposal:
                proxy.arm(Point("client", 1, "before"), "black hole")
                return Proposal([], head.columns)

            far = PostgresStore(proxy.dsn, schema=postgres_schema, lock_timeout_s=0.5)
            lost = far_away.submit(far.append_locked, held.id, held.end, lose_the_network)
            assert proxy.struck.wait(KNOWN_S_MAX)
            promised = writer.append(held.next("held"))
            append_from_threads(writer, free, witness, times=10)
            assert not promised.done()
            assert promised.result(2 * KNOWN_S_MAX).code is Code.STORED
            assert not lost.done()
        assert isinstance(lost.exception(KNOWN_S_MAX), StoreUnavailable)
        far.close()


def append_from_threads(writer: Writer, jobs: Sequence[OwnedJob], witness: Witness, times: int) -> None:
    def go_on(job: OwnedJob) -> None:
        for value in range(times):
            append_one(writer, job, witness, value)

    with ThreadPoolExecutor(len(jobs)) as pool:
        for _ in pool.map(go_on, jobs, timeout=KNOWN_S_MAX):
            pass
