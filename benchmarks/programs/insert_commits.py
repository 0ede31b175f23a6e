"""The limit of one at a time: one INSERT per commit, on one connection, of a row like a step's."""

from __future__ import annotations

import sqlite3
from uuid import uuid4

import psycopg
from program import Measured, Stopwatch, Work, main, settings_of_postgres, settings_of_sqlite
from step_rows import TABLE, payload


def measure(work: Work) -> Measured:
    commits = work.jobs * work.steps
    if work.store.startswith("sqlite:///"):
        return on_sqlite(work.store.removeprefix("sqlite:///"), commits)
    return on_postgres(work.store, commits)


def on_postgres(url: str, commits: int) -> Measured:
    watch, job_id = Stopwatch(), str(uuid4())
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(TABLE)
        with watch.running():
            for number in range(commits):
                connection.execute("insert into steps values (%s, %s, %s)", (job_id, number, payload(number)))
        settings = settings_of_postgres(lambda text: connection.execute(text.encode()).fetchall()[0][0])
    return Measured(commits, watch.seconds, settings)


def on_sqlite(path: str, commits: int) -> Measured:
    watch, job_id = Stopwatch(), str(uuid4())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(TABLE)
    with watch.running():
        for number in range(commits):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("insert into steps values (?, ?, ?)", (job_id, number, payload(number)))
            connection.execute("COMMIT")
    settings = settings_of_sqlite(lambda text: connection.execute(text).fetchone()[0])
    connection.close()
    return Measured(commits, watch.seconds, settings)


if __name__ == "__main__":
    main(measure)
