"""DBOS: the same jobs as workflows of one queue, enqueued by its client, run by worker processes that poll quickly."""

from __future__ import annotations

import os
import threading
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig
from dbos_jobs import chain, settings_of
from fleet import WORKER, until, workers
from program import Measured, Stopwatch, Work, main

QUEUE = "chains"
POLL_S = 0.05
"""Its default is a second, which would be most of what is measured."""


def measure(work: Work) -> Measured:
    if work.what == WORKER:
        serve(work)
    client, watch = set_up(work), Stopwatch()
    engine = client._sys_db.engine
    with workers(work):
        run_all(client, engine, work.steps, work.workers * work.at_once)
        with watch.running():
            run_all(client, engine, work.steps, work.jobs)
    return Measured(work.jobs, watch.seconds, settings_of(engine))


def config_of(work: Work) -> DBOSConfig:
    return {
        "name": "steps",
        "system_database_url": work.store,
        "log_level": "ERROR",
        "application_version": "1",
        "executor_id": str(os.getpid()),
    }


def set_up(work: Work) -> DBOSClient:
    """Its tables, which an application makes and a client does not."""
    DBOS(config=config_of(work))
    DBOS.launch()
    DBOS.destroy()
    return DBOSClient(system_database_url=work.store, application_name="steps")


def serve(work: Work) -> None:
    """Until this process is ended."""
    DBOS(config=config_of(work))
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=work.at_once, polling_interval_sec=POLL_S)
    threading.Event().wait()


def run_all(client: DBOSClient, engine: Any, steps: int, jobs: int) -> None:
    """Enqueue the workflows and wait until each has succeeded."""
    before = succeeded(engine)
    for _ in range(jobs):
        client.enqueue({"queue_name": QUEUE, "workflow_name": chain.__qualname__}, steps)
    until(lambda: succeeded(engine) == before + jobs)


def succeeded(engine: Any) -> int:
    with engine.connect() as connection:
        query = sa.text("select count(*) from dbos.workflow_status where status = 'SUCCESS' and queue_name = :queue")
        return int(connection.execute(query, {"queue": QUEUE}).scalar())


if __name__ == "__main__":
    main(measure)
