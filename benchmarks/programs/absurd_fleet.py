"""Absurd: the same jobs as tasks of one queue, run by worker processes with as many threads as jobs at once."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from absurd_jobs import set_up
from absurd_sdk import Absurd
from fleet import WORKER, until, workers
from program import Measured, Stopwatch, Work, main, settings_of_postgres


def measure(work: Work) -> Measured:
    logging.disable(logging.WARNING)
    app = Absurd(work.store)
    app.register_task("chain")(chain)
    if work.what == WORKER:
        app.start_worker(concurrency=work.at_once)
    set_up(work.store)
    watch = Stopwatch()
    with workers(work), psycopg.connect(work.store, autocommit=True) as connection:
        run_all(app, connection, work.steps, work.workers * work.at_once, before=0)
        with watch.running():
            run_all(app, connection, work.steps, work.jobs, before=work.workers * work.at_once)
        settings = settings_of_postgres(lambda text: connection.execute(text.encode()).fetchall()[0][0])
    return Measured(work.jobs, watch.seconds, settings)


def chain(params: Any, ctx: Any) -> None:
    for number in range(params["steps"]):
        ctx.step(f"s{number}", lambda: None)


def run_all(app: Absurd, connection: psycopg.Connection[Any], steps: int, jobs: int, *, before: int) -> None:
    """Spawn the tasks and wait until each has completed."""
    for _ in range(jobs):
        app.spawn("chain", {"steps": steps})
    count = b"select count(*) from absurd.t_default where state = 'completed'"
    until(lambda: connection.execute(count).fetchall() == [(before + jobs,)])


if __name__ == "__main__":
    main(measure)
