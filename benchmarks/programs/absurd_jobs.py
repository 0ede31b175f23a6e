"""Absurd: the same steps as checkpoints of tasks, worked by one worker with as many threads as jobs at once."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import Absurd
from program import Measured, Stopwatch, Work, main, settings_of_postgres


def measure(work: Work) -> Measured:
    logging.disable(logging.WARNING)
    set_up(work.store)
    app, watch = Absurd(work.store), Stopwatch()
    jobs = Jobs(app)
    jobs.run(1, work.steps, 1)
    with watch.running():
        jobs.run(work.jobs, work.steps, work.at_once)
    with psycopg.connect(work.store) as connection:
        settings = settings_of_postgres(lambda text: connection.execute(text.encode()).fetchall()[0][0])
        done = connection.execute("select count(*) from absurd.c_default").fetchall()[0][0]
    if done < (work.jobs + 1) * work.steps:
        raise RuntimeError(f"{done} checkpoints are stored (expected {(work.jobs + 1) * work.steps})")
    return Measured(work.jobs * work.steps, watch.seconds, settings, warm_up=work.steps)


def set_up(url: str) -> None:
    """The schema that the project's own tool carries, and one queue."""
    with psycopg.connect(url, autocommit=True) as connection:
        with contextlib.suppress(psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateObject):
            if connection.execute("select to_regnamespace('absurd')").fetchall()[0][0] is None:
                connection.execute(absurdctl.BUNDLED_SCHEMA_SQL.encode())
        connection.execute("select absurd.create_queue('default')")


class Jobs:
    """Tasks of one worker; the last to end stops it."""

    def __init__(self, app: Absurd) -> None:
        self.app = app
        self.left = 0
        self.lock = threading.Lock()
        app.register_task("chain")(self.chain)

    def run(self, jobs: int, steps: int, at_once: int) -> None:
        self.left = jobs
        for _ in range(jobs):
            self.app.spawn("chain", {"steps": steps})
        self.app.start_worker(concurrency=at_once)

    def chain(self, params: Any, ctx: Any) -> None:
        for number in range(params["steps"]):
            ctx.step(f"s{number}", lambda: None)
        with self.lock:
            self.left -= 1
            if not self.left:
                self.app.stop_worker()


if __name__ == "__main__":
    main(measure)
