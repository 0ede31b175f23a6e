"""eventsourcing: one aggregate with as many events, got from its repository, which reads and applies all of them."""

from __future__ import annotations

import os
import resource
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing_appends import environment
from program import Measured, Stopwatch, Work, leave_alone, main

PAGE = 500


class Job(Aggregate):
    """How far each of its steps has come."""

    @event("Started")
    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}

    @event("StepProgressed")
    def progress(self, phase: str, sub_step: str, generation: int, attempt: int, done: int, note: str) -> None:
        self.steps[sub_step] = {"attempt": attempt, "done": done, "note": note}


def measure(work: Work) -> Measured:
    app: Application[Any] = Application(env={**os.environ, **environment(work.store)})
    job, watch = Job(), Stopwatch()
    for number in range(1, work.events):
        job.progress("main", f"s{number % 2_000}", 1, 1, number, "so far")
        if number % PAGE == 0:
            app.save(job)
    app.save(job)
    leave_alone()
    before = peak_mb()
    with watch.running():
        found = app.repository.get(job.id)
    if found.version != work.events:
        raise RuntimeError(f"{found.version} events were applied (expected {work.events})")
    app.close()
    notes = {"CPU µs/event": watch.cpu_seconds / work.events * 1e6, "peak grew by MB": peak_mb() - before}
    return Measured(work.events, watch.seconds, {"its own recorder": "default settings"}, notes)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(measure)
