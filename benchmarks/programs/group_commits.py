"""The limit of many at once: producers wait for their rows, one thread writes all that waits in one INSERT a commit."""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from uuid import uuid4

import psycopg
from program import Measured, Stopwatch, Work, at_once, main, settings_of_postgres, settings_of_sqlite
from step_rows import TABLE, payload

Row = tuple[str, int, str]
Write = Callable[[list[Row]], None]
Waiting = queue.SimpleQueue[tuple[list[Row], "Future[None]"] | None]


def measure(work: Work) -> Measured:
    if work.store.startswith("sqlite:///"):
        file = sqlite3.connect(work.store.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        file.execute(TABLE)
        seconds = asyncio.run(timed(work, lambda rows: insert_into_sqlite(file, rows)))
        settings = settings_of_sqlite(lambda text: file.execute(text).fetchone()[0])
        file.close()
        return Measured(work.jobs * work.steps, seconds, settings)
    with psycopg.connect(work.store, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(TABLE)
        seconds = asyncio.run(timed(work, lambda rows: insert_into_postgres(connection, rows)))
        settings = settings_of_postgres(lambda text: connection.execute(text.encode()).fetchall()[0][0])
    return Measured(work.jobs * work.steps, seconds, settings)


async def timed(work: Work, write: Write) -> float:
    waiting: Waiting = queue.SimpleQueue()
    writer = threading.Thread(target=drain, args=(waiting, write))
    writer.start()
    watch = Stopwatch()
    with watch.running():
        await at_once(lambda: produce(waiting, work.steps), work)
    waiting.put(None)
    writer.join()
    return watch.seconds


async def produce(waiting: Waiting, steps: int) -> None:
    """A job of steps that each put two rows into the log and wait for them."""
    job_id = str(uuid4())
    for number in range(steps):
        durable: Future[None] = Future()
        waiting.put(([(job_id, 2 * number + each, payload(number)) for each in (0, 1)], durable))
        await asyncio.wrap_future(durable)


def drain(waiting: Waiting, write: Write) -> None:
    """Whatever waits is one batch; while it is written the next one gathers."""
    while (first := waiting.get()) is not None:
        batch = [first]
        while not waiting.empty() and (following := waiting.get()) is not None:
            batch.append(following)
        write([row for rows, _ in batch for row in rows])
        for _, durable in batch:
            durable.set_result(None)


def insert_into_postgres(connection: psycopg.Connection[tuple[object, ...]], rows: list[Row]) -> None:
    connection.execute(
        "insert into steps select row->>0, (row->>1)::bigint, row->>2 from json_array_elements(%s) as row",
        [json.dumps(rows)],
    )


def insert_into_sqlite(connection: sqlite3.Connection, rows: list[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("insert into steps values (?, ?, ?)", rows)
    connection.execute("COMMIT")


if __name__ == "__main__":
    main(measure)
