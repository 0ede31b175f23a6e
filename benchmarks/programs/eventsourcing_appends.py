"""eventsourcing: aggregates that record one event and are saved, by as many threads as are at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from program import Measured, Stopwatch, Work, main


class Job(Aggregate):
    """Counts its steps."""

    @event("Started")
    def __init__(self) -> None:
        self.steps = 0

    @event("StepDone")
    def step(self, name: str) -> None:
        self.steps += 1


def environment(url: str) -> dict[str, str]:
    if url.startswith("sqlite:///"):
        return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": url.removeprefix("sqlite:///")}
    parts = urlsplit(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.removeprefix("/"),
        "POSTGRES_HOST": parts.hostname or parse_qs(parts.query)["host"][0],
        "POSTGRES_PORT": str(parts.port or 5432),
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": "none",
    }


def measure(work: Work) -> Measured:
    app: Application[Any] = Application(env={**os.environ, **environment(work.store)})
    jobs = [Job() for _ in range(work.at_once)]
    app.save(*jobs)
    watch, each = Stopwatch(), work.events // work.at_once

    def append(job: Job) -> None:
        for number in range(each):
            job.step(f"s{number}")
            app.save(job)

    with ThreadPoolExecutor(work.at_once) as pool, watch.running():
        list(pool.map(append, jobs))
    found = app.repository.get(jobs[0].id).steps
    app.close()
    if found != each:
        raise RuntimeError(f"{found} events are stored (expected {each})")
    return Measured(each * work.at_once, watch.seconds, {"its own recorder": "default settings"})


if __name__ == "__main__":
    main(measure)
