"""What a page of a long log, a long feed or many documents costs PostgreSQL: what is on it, whatever comes behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, cast

import psycopg
import pytest
from log_builder import LogBuilder, changed
from psycopg import sql
from psycopg.conninfo import make_conninfo

from steplog.eventstore import postgres_feed, postgres_projected, postgres_tables
from steplog.eventstore.feed import parts_of
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.projected import Change, Document, Move
from steplog.testing.clock import VirtualClock

EVENTS = 3_000
PAGE = 100


@pytest.fixture
def badly_planned(postgres_dsn: str, postgres_store: PostgresStore, postgres_schema: str) -> Iterator[PostgresStore]:
    """What a planner does that knows nothing of a table yet: it fetches what matches, and sorts that."""
    dsn = make_conninfo(postgres_dsn, options="-c enable_indexscan=off -c enable_indexonlyscan=off")
    with closing(PostgresStore(dsn, schema=postgres_schema)) as store:
        yield store


def rows_read(
    store: PostgresStore, statement: str, given: Sequence[Any] | dict[str, Any], table: str = "events"
) -> int:
    """How many of the table's rows the server looked at."""
    explained = cast(Any, f"explain (analyze, format json) {statement}")
    ((((plan,),),),) = (store._connections.rows(explained, given),)
    return _scanned(plan["Plan"], table)


def _scanned(node: dict[str, Any], table: str) -> int:
    own = 0
    if node.get("Relation Name") == table:
        removed = sum(int(count) for name, count in node.items() if name.startswith("Rows Removed by"))
        own = (int(node["Actual Rows"]) + removed) * int(node["Actual Loops"])
    return own + sum(_scanned(child, table) for child in node.get("Plans", []))


def long_log(store: PostgresStore) -> str:
    build = LogBuilder(VirtualClock())
    job_id = store.create(build.job())
    store.append_locked(job_id, store.head(job_id).position, build.proposing(*(changed(n) for n in range(EVENTS))))
    return job_id


def test_a_page_of_a_log_reads_no_more_than_its_rows(badly_planned: PostgresStore) -> None:
    job_id, seen = long_log(badly_planned), list[list[Any]]()
    run = badly_planned._connections.rows

    def watched(statement: Any, given: Any) -> Any:
        seen.append(given)
        return run(statement, given)

    page = postgres_tables.rows_after(watched, job_id, 500, EVENTS, PAGE)
    assert [row[0] for row in page] == list(range(501, 501 + PAGE))
    assert rows_read(badly_planned, postgres_tables._ROWS, seen[0]) == PAGE


def test_opening_a_job_without_a_state_reads_no_more_than_a_page(badly_planned: PostgresStore) -> None:
    given = {"job_id": long_log(badly_planned), "reducer_version": 1, "until": EVENTS, "limit": PAGE}
    assert rows_read(badly_planned, postgres_tables._OPENED, given) == PAGE


def test_a_page_of_the_feed_reads_little_more_than_its_entries(
    postgres_store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    build = LogBuilder(VirtualClock())
    for _ in range(EVENTS // 20):
        postgres_store.create_many([build.job() for _ in range(20)])
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("analyze {}").format(sql.Identifier(postgres_schema, "events")))
    cursor = postgres_store.feed(None, PAGE).cursor
    for _ in range(5):
        cursor = postgres_store.feed(cursor, PAGE).cursor
    _, _, *parts = parts_of(cursor, "postgres", str, str, str, str, str, str, int)
    given = {**postgres_feed._Place(*parts)._asdict(), "limit": PAGE}
    assert rows_read(postgres_store, postgres_feed._PAGE, given) <= 3 * PAGE


@pytest.fixture
def built(postgres_store: PostgresStore) -> list[str]:
    """Jobs whose documents are there, and of which the planner does not know yet."""
    build = LogBuilder(VirtualClock())
    job_ids = [str(job_id) for job_id in postgres_store.create_many([build.job() for _ in range(EVENTS // 3)])]
    documents = [Document(job_id, 1, {}) for job_id in job_ids]
    moves = [Move("statistics", None, {"generation": 1})]
    assert postgres_store.projected.store(Change("statistics", moves, 1, documents))
    return job_ids


def test_a_few_documents_are_found_without_a_look_at_the_others(
    postgres_store: PostgresStore, built: list[str]
) -> None:
    given = {"name": "statistics", "generation": 1, "keys": built[:10]}
    assert rows_read(postgres_store, postgres_projected._DOCUMENTS, given, "projected") == 10


def test_a_page_of_jobs_is_compared_with_its_own_documents(postgres_store: PostgresStore, built: list[str]) -> None:
    given = {"name": "statistics", "generation": 1, "after": built[0], "limit": PAGE}
    assert rows_read(postgres_store, postgres_projected._JOBS, given, "projected") == PAGE
