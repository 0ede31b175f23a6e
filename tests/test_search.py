"""Search: every list and look-up goes through an index, at a hundred thousand jobs too, and appends stay cheap."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from log_builder import LogBuilder
from psycopg import sql
from witness_figures import Show

from steplog.eventstore import postgres_tables, sqlite_tables
from steplog.eventstore.chain import Position
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Append, Claim, HeadQuery, NewJob, Store
from steplog.testing.clock import VirtualClock

QUERIES: dict[str, HeadQuery] = {
    "newest": HeadQuery(),
    "workflow": HeadQuery(workflow="rare"),
    "status": HeadQuery(status="parked"),
    "key": HeadQuery(key="k77"),
    "failed sub-step": HeadQuery(failed_sub_step="menuImport"),
    "batch": HeadQuery(batch_id="b1"),
    "two filters": HeadQuery(workflow="registration", status="parked"),
    "since": HeadQuery(since="2026-01-01T00:00:00.000000Z", status="parked"),
}


@pytest.mark.parametrize("name", [*sqlite_tables._LEADS, None])
def test_no_list_scans_the_file(tmp_path: Path, name: str | None) -> None:
    statement = sqlite_tables._LEADS[name] if name else sqlite_tables._ALL_HEADS
    with closing(SQLiteStore(tmp_path / "log.db")) as store:
        store.migrate()
    plan = _sqlite_plan(tmp_path / "log.db", statement)
    assert any(line.startswith("SEARCH jobs USING") for line in plan), plan
    assert not any(line.startswith("SCAN jobs") for line in plan), plan


def test_end_of_an_id_is_found_by_its_index(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "log.db")) as store:
        store.migrate()
    plan = _sqlite_plan(tmp_path / "log.db", sqlite_tables._ENDING_IN)
    assert any("INDEX jobs_by_suffix" in line for line in plan), plan


def _sqlite_plan(path: Path, statement: str) -> list[str]:
    names = ("before", "oldest", "workflow", "status", "phase", "key", "since", "failed_sub_step", "batch_id")
    given: dict[str, Any] = {**dict.fromkeys(names), "tags": "{}", "limit": 50, "suffix": "abcd"}
    with closing(sqlite3.connect(path)) as raw:
        return [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", given)]


# --- a hundred thousand jobs -----------------------------------------------------------------------------------------

JOBS = 100_000


def many_jobs(count: int) -> Iterator[list[NewJob]]:
    """Mostly completed; one in a thousand parked, one in ten thousand of another workflow."""
    build = LogBuilder(VirtualClock())
    for start in range(0, count, 2000):
        yield [
            build.job(
                workflow="rare" if number % 10_000 == 7 else "registration",
                status="parked" if number % 1000 == 5 else "completed",
                key=f"k{number}" if number % 10 == 7 else None,
                failed_sub_step="menuImport" if number % 1000 == 5 else None,
                batch_id=f"b{number // 100}" if number % 2 else None,
                tags={"city": f"c{number % 500}"},
            )
            for number in range(start, start + 2000)
        ]


@pytest.fixture(scope="module")
def hundred_thousand(tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str) -> Iterator[dict[str, Store]]:
    """Both kinds of store with the same jobs."""
    schema = "steplog_search"
    stores: dict[str, Any] = {
        "sqlite": SQLiteStore(tmp_path_factory.mktemp("search") / "log.db"),
        "postgres": PostgresStore(postgres_dsn, schema=schema),
    }
    for store in stores.values():
        store.migrate()
        for batch in many_jobs(JOBS):
            assert all(isinstance(made, str) for made in store.create_many(batch))
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("vacuum analyze {}").format(sql.Identifier(schema, "jobs")))
    yield stores
    for store in stores.values():
        store.close()
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_latencies_at_a_hundred_thousand_jobs(hundred_thousand: dict[str, Store], kind: str, show: Show) -> None:
    store = hundred_thousand[kind]
    last = store.heads(HeadQuery(limit=1))[0].job_id
    asked: dict[str, Callable[[], Sequence[object]]] = {
        name: partial(store.heads, query) for name, query in QUERIES.items()
    }
    asked["end of an id"] = partial(store.find, last[-8:])
    for name, ask in asked.items():
        seconds, found = [], ask()
        for _ in range(20):
            began = time.perf_counter()
            found = ask()
            seconds.append(time.perf_counter() - began)
        assert found, name
        show(f"{kind}, {name}", f"{sorted(seconds)[10] * 1000:.2f} ms, {len(found)} found")


@pytest.mark.heavy
def test_plans_at_a_hundred_thousand_jobs_scan_nothing(
    hundred_thousand: dict[str, Store], postgres_dsn: str, show: Show
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for name, query in QUERIES.items():
            seen: list[str] = []

            def run(text: Any, given: Any, seen: list[str] = seen) -> list[Any]:
                explained = sql.SQL("explain " + text).format(s=sql.Identifier("steplog_search"))
                seen.extend(row[0] for row in connection.execute(explained, given))
                return []

            postgres_tables.list_heads(run, query)
            plan = "\n".join(seen)
            assert "Index" in plan, f"{name}: {plan}"
            assert "Seq Scan on jobs" not in plan, f"{name}: {plan}"
            show(f"plan of {name}", ", ".join(dict.fromkeys(re.findall(r"(?:using|Index Scan on) (jobs_\w+)", plan))))


@pytest.mark.heavy
def test_heads_updates_stay_hot(postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    build = LogBuilder(VirtualClock())
    worker = build.worker()
    postgres_store.register_worker(worker, 60)
    job = build.job(status="running")
    postgres_store.create(job)
    claim = postgres_store.claim(job.job_id, worker.worker_id, _end(job), build.claiming())
    position = postgres_store.head(job.job_id).position
    for value in range(300):
        item: Append = build.append(job.job_id, position, Claim(worker.worker_id, claim.epoch, claim.claim_id), value)
        postgres_store.append([item])
        position = postgres_store.head(job.job_id).position
    row = None
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for _ in range(100):
            connection.execute("select pg_stat_clear_snapshot()")
            row = connection.execute(
                "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where schemaname = %s and relname = 'jobs'",
                [postgres_schema],
            ).fetchone()
            if row and row[0] >= 301:
                break
            time.sleep(0.1)  # the server tells its statistics now and then
    assert row
    assert row[1] >= 0.99 * 300


def _end(job: NewJob) -> Position:
    last = job.events[-1]
    return Position(last.version, last.hash, last.recorded_at)
