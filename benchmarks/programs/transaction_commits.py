"""The limit of transactional sub-steps: a commit of one row of the user's and two of a log, on bare connections."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
from program import Measured, Stopwatch, Work, main, settings_of_postgres, settings_of_sqlite
from step_rows import EFFECTS, TABLE, payload


def measure(work: Work) -> Measured:
    if work.store.startswith("sqlite:///"):
        return on_sqlite(work.store.removeprefix("sqlite:///"), work.jobs * work.steps)
    return on_postgres(work)


def on_postgres(work: Work) -> Measured:
    """As many connections as there are jobs at once; each commits its steps one after the other."""
    watch = Stopwatch()
    with psycopg.connect(work.store, autocommit=True, prepare_threshold=None) as first:
        first.execute(TABLE)
        first.execute(EFFECTS)
        settings = settings_of_postgres(lambda text: first.execute(text.encode()).fetchall()[0][0])
    connections = [psycopg.connect(work.store) for _ in range(work.at_once)]
    commits = work.jobs * work.steps // work.at_once
    with ThreadPoolExecutor(work.at_once) as pool, watch.running():
        list(pool.map(lambda connection: commit_steps(connection, commits), connections))
    for connection in connections:
        connection.close()
    return Measured(commits * work.at_once, watch.seconds, settings)


def commit_steps(connection: psycopg.Connection[tuple[object, ...]], commits: int) -> None:
    job_id = str(uuid4())
    for number in range(commits):
        connection.execute("insert into effects values (%s, %s)", (job_id, number))
        rows = [value for each in (0, 1) for value in (job_id, 2 * number + each, payload(number))]
        connection.execute("insert into steps values (%s, %s, %s), (%s, %s, %s)", rows)
        connection.commit()


def on_sqlite(path: str, commits: int) -> Measured:
    watch, job_id = Stopwatch(), str(uuid4())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(TABLE)
    connection.execute(EFFECTS)
    with watch.running():
        for number in range(commits):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("insert into effects values (?, ?)", (job_id, number))
            rows = [(job_id, 2 * number + each, payload(number)) for each in (0, 1)]
            connection.executemany("insert into steps values (?, ?, ?)", rows)
            connection.execute("COMMIT")
    settings = settings_of_sqlite(lambda text: connection.execute(text).fetchone()[0])
    connection.close()
    return Measured(commits, watch.seconds, settings)


if __name__ == "__main__":
    main(measure)
