"""What looking at jobs costs the database: its statements are counted, on both stores."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from api_world import TOKENS, World, streaming
from hostile_jobs import create_long

from steplog.engine import operators
from steplog.eventstore import sqlite_connections
from steplog.eventstore.process_identity import own_identity
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Claim, Store

STATEMENTS_MAX = 3
"""Of a job's page that nobody has looked at before."""
PAGE = {"Accept": "text/html"}
OF_THE_FEED = ("pg_current_snapshot", "xid", "WHERE position")
"""What statements of the feed's one reader hold: they come as time passes, whoever listens."""


class Statements:
    """Those that the stores of this process have sent to their databases."""

    def __init__(self) -> None:
        self._sent: list[str] = []

    def sent(self, statement: object) -> None:
        text = statement.decode() if isinstance(statement, bytes) else str(statement)
        if not text.lstrip().upper().startswith(("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA")):
            self._sent.append(text)

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """The statements sent inside."""
        found: list[str] = []
        begun = len(self._sent)
        yield found
        found += self._sent[begun:]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Counts the statements of stores that are opened after it."""
    counting = Statements()
    execute, open_one = psycopg.Cursor.execute, sqlite_connections.Connections._open

    def executed(cursor: Any, query: Any, *args: Any, **how: Any) -> Any:
        counting.sent(query)
        return execute(cursor, query, *args, **how)

    def opened(*args: Any) -> sqlite3.Connection:
        connection = open_one(*args)
        connection.set_trace_callback(counting.sent)
        return connection

    monkeypatch.setattr(psycopg.Cursor, "execute", executed)
    monkeypatch.setattr(sqlite_connections.Connections, "_open", opened)
    return counting


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def within_time() -> Any:
        return await asyncio.wait_for(scenario(), 300)

    return asyncio.run(within_time())


def owned_by_a_worker(store: Store) -> Claim:
    """A claim of a worker that lives."""
    claim = Claim("w", 1, "c")
    store.register_worker(own_identity(claim.worker_id), 60.0)
    return claim


@pytest.mark.parametrize("events", [60, 2600, 3399])
def test_a_page_that_nobody_has_looked_at_costs_three_statements(
    statements: Statements, store: Store, events: int
) -> None:
    world = World(store)
    world.client.get(f"/jobs/{world.job()}", headers=PAGE)  # connections are opened and set up
    job_id = create_long(store, events, owned_by_a_worker(store))
    with statements.counted() as sent:
        answer = world.client.get(f"/jobs/{job_id}", headers=PAGE)
    assert (answer.status_code, "running" in answer.text) == (200, True)
    assert 0 < len(sent) <= STATEMENTS_MAX, "\n".join(sent)


def test_a_page_that_was_looked_at_costs_one_statement_until_something_happens(
    statements: Statements, store: Store
) -> None:
    world = World(store)
    job_id = world.job()
    for expected in (None, 1, 1):
        with statements.counted() as sent:
            world.client.get(f"/jobs/{job_id}", headers=PAGE)
        assert expected in (None, len(sent)), "\n".join(sent)
    operators.signal(store, job_id, "go", by="anna")
    with statements.counted() as sent:
        assert "SignalReceived" in world.client.get(f"/jobs/{job_id}", headers=PAGE).text
    assert len(sent) == 2, "\n".join(sent)


def statements_of_viewers(statements: Statements, store: Store, viewers: int) -> tuple[int, int]:
    """How many statements it costs that so many people look at a job to which something happens; the feed's apart."""
    world = World(store)

    async def scenario() -> list[str]:
        job_id = await asyncio.to_thread(world.job)
        path = f"/api/v1/jobs/{job_id}/events/stream?after={store.head(job_id).version}"

        async def happens(name: str) -> None:
            await asyncio.to_thread(operators.signal, store, job_id, name, by="anna")
            version = store.head(job_id).version
            for stream in streams:
                told = await stream.next()
                assert json.loads(told["data"])["data"]["name"] == name
            for _ in streams:
                page = await asyncio.to_thread(world.client.get, f"/jobs/{job_id}?seen={version}", headers=PAGE)
                assert name in page.text

        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(streaming(world.app, path)) for _ in range(viewers)]
            await happens("everybody is there")
            with statements.counted() as sent:
                await happens("go")
            return sent

    sent = run(scenario)
    of_the_feed = [each for each in sent if any(part in each for part in OF_THE_FEED)]
    return len(sent) - len(of_the_feed), len(of_the_feed)


@pytest.mark.parametrize("viewers", [50, pytest.param(1000, marks=pytest.mark.heavy)])
def test_many_viewers_cost_the_database_what_one_does(
    statements: Statements, store: Store, monkeypatch: pytest.MonkeyPatch, viewers: int
) -> None:
    monkeypatch.setattr("steplog.api.sharing.KEPT_S", 60.0)  # no slow machine makes the page twice
    one, of_the_feed = statements_of_viewers(statements, store, 1)
    many, _ = statements_of_viewers(statements, store, viewers)
    assert 0 < one == many
    assert of_the_feed > 0


def test_a_page_is_shared_with_nobody_who_comes_in_otherwise_or_was_told_of_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steplog.api.sharing.KEPT_S", 60.0)
    world = World(tokens=TOKENS, name="anna")
    job_id = world.job()

    def seen(token: str, seen: int) -> str:
        return world.as_token(token).get(f"/jobs/{job_id}?seen={seen}", headers=PAGE).text

    first = seen("anna", 1)
    operators.signal(world.store, job_id, "go", by="anna")
    assert seen("anna", 1) == first
    assert "SignalReceived" in seen("anna", 2)
    assert "SignalReceived" in seen("reader", 1)
    assert ">anna<" not in seen("reader", 1)


def test_a_file_that_nothing_happens_in_is_not_asked(
    statements: Statements, sqlite_store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, looks, mark = World(sqlite_store), threading.Semaphore(0), sqlite_store.commit_mark

    def look() -> str:
        looks.release()
        return mark()

    def looked(times: int) -> bool:
        return all(looks.acquire(timeout=10) for _ in range(times))

    async def scenario() -> list[str]:
        job_id = await asyncio.to_thread(world.job)
        async with streaming(world.app, f"/api/v1/jobs/{job_id}/events/stream") as stream:
            await stream.begun.wait()
            assert await asyncio.to_thread(looked, 3)  # the first finds what the job's own run has stored
            with statements.counted() as sent:
                assert await asyncio.to_thread(looked, 5)
            return sent

    monkeypatch.setattr(sqlite_store, "commit_mark", look)
    assert run(scenario) == []
