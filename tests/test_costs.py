"""What recording a step costs, counted by the server and the kernel: one round trip and one fsync for the completion of
a sub-step and the start of the next.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from steplog import Step, Workflow
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.testing import Kit

STEPS = 1_000
A_FEW = 60
"""For creating the store and the job, the worker's coming and going, and SQLite's checkpoints."""


def chain(steps: int, started: Any) -> Workflow[Any, Any]:
    """Sub-steps one after the other; each asks whether its own start is visible from outside."""
    wf: Workflow[Any, Any] = Workflow("chain")
    before: Any = None
    for number in range(steps):

        async def handler(step: Step) -> None:
            assert started(step.job_id, step.name), f"{step.name} runs before its start is durable"

        before = wf.sub_step(name=f"s{number}", after=[before] if before else [])(handler)
    return wf


def test_a_step_on_postgres_costs_one_round_trip_and_one_flush(
    postgres_dsn: str, postgres_store: PostgresStore, postgres_schema: str
) -> None:
    log = server_log(postgres_dsn)
    query = sql.SQL(
        "select count(*) from {}.events where job_id = %s and type = 'SubStepStarted' and data ->> 'sub_step' = %s"
    ).format(sql.Identifier(postgres_schema))
    with (
        psycopg.connect(postgres_dsn, autocommit=True) as observer,
        psycopg.connect(postgres_dsn, autocommit=True) as second,
        every_statement_logged(observer),
    ):

        def started(job_id: str, name: str) -> bool:
            return second.execute(query, [job_id, name]).fetchall() == [(1,)]

        store = PostgresStore(postgres_dsn, schema=postgres_schema)
        read_from, flushes_before = log.stat().st_size, flushes(observer)
        job = chain(STEPS, started).run(store=store)
        seen = statements(log.read_bytes()[read_from:].decode(), {observer.info.backend_pid, second.info.backend_pid})
        flushed = flushes(observer) - flushes_before
        store.close()

    assert job.status == "completed"
    assert STEPS < seen <= STEPS + A_FEW
    assert STEPS // 2 < flushed <= STEPS + A_FEW, "the server's WAL writer may flush some of them first"


@pytest.mark.parametrize("one_after_the_other", [True, False])
def test_a_step_costs_as_many_calls_in_a_large_job_as_in_a_small_one(one_after_the_other: bool) -> None:
    """Mutant: something looks at every sub-step, or at every attempt that runs, whenever one of them moves."""
    small, large = (calls_per_step(steps, one_after_the_other) for steps in (100, 400))
    assert large < 1.1 * small, f"{small:.0f} calls a step among 100, {large:.0f} among 400"


def calls_per_step(steps: int, one_after_the_other: bool) -> float:
    """How many functions of Python's are called for a sub-step, on a store in memory."""
    wf: Workflow[Any, Any] = Workflow("counted")
    before: list[Any] = []
    for number in range(steps):

        async def nothing() -> None:
            pass

        sub_step = wf.sub_step(name=f"s{number}", after=before)(nothing)
        before = [sub_step] if one_after_the_other else []
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    kit = Kit()
    sys.setprofile(count)
    try:
        kit.run_blocking(wf)
    finally:
        sys.setprofile(None)
    return calls / steps


def server_log(dsn: str) -> Path:
    """Where the tests' own server logs; a server that somebody gave us keeps its statements to itself."""
    folder = Path(str(conninfo_to_dict(dsn).get("host", "")))
    if not (folder / "log").is_file():
        pytest.skip("counting statements needs the tests' own server")
    return folder / "log"


@contextmanager
def every_statement_logged(observer: psycopg.Connection[Any]) -> Iterator[None]:
    """Connections made inside have each of their statements in the server's log."""
    database = sql.Identifier(observer.info.dbname)
    observer.execute(sql.SQL("alter database {} set log_statement = 'all'").format(database))
    try:
        yield
    finally:
        observer.execute(sql.SQL("alter database {} reset log_statement").format(database))


def statements(log: str, not_ours: set[int]) -> int:
    """How many statements the server was sent by others than those processes."""
    pids = re.findall(r"\[(\d+)\] LOG:  (?:statement|execute [^:]*):", log)
    return sum(int(pid) not in not_ours for pid in pids)


def flushes(observer: psycopg.Connection[Any]) -> int:
    """WAL flushes of the server so far; its processes report theirs when they have been idle for a moment."""
    before, now = -1, -2
    while now != before:
        time.sleep(1.1)
        before, (now,) = now, observer.execute("select wal_sync from pg_stat_wal").fetchall()[0]
    return now


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("strace") is None, reason="counting fsyncs needs strace")
def test_a_step_on_sqlite_costs_one_fsync(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(counts), sys.executable, __file__]
    subprocess.run([*command, str(tmp_path / "log.db")], check=True, timeout=120)

    rows = [line.split() for line in counts.read_text().splitlines()]
    synced = sum(int(row[3]) for row in rows if row and row[-1] in ("fsync", "fdatasync"))
    assert STEPS < synced <= STEPS + A_FEW


def run_chain_on_sqlite(path: Path) -> None:
    """What the traced process does."""
    store, second = SQLiteStore(path), sqlite3.connect(path, isolation_level=None)
    query = "SELECT count(*) FROM events WHERE job_id = ? AND type = 'SubStepStarted' AND data LIKE ?"

    def started(job_id: str, name: str) -> bool:
        return second.execute(query, (job_id, f'%"sub_step":"{name}"%')).fetchall() == [(1,)]

    job = chain(STEPS, started).run(store=store)
    second.close()
    store.close()
    assert job.status == "completed"


if __name__ == "__main__":
    run_chain_on_sqlite(Path(sys.argv[1]))
