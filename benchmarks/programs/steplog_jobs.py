"""steplog: no-op steps of jobs run one at a time or at once, through `Workflow.arun` with default options."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

from program import Measured, Stopwatch, Work, at_once, main
from steplog_stores import durability_of, opened

from steplog import JobHandle, Workflow
from steplog.eventstore.store import Store


def chain(steps: int) -> Workflow[Any, Any]:
    """Sub-steps that do nothing, one after the other."""
    workflow: Workflow[Any, Any] = Workflow(f"chain of {steps}")
    before: list[Any] = []
    for number in range(steps):

        async def nothing() -> None:
            pass

        before = [workflow.sub_step(name=f"s{number}", after=before)(nothing)]
    return workflow


def measure(work: Work) -> Measured:
    with opened(work.store) as store:
        workflow, watch = chain(work.steps), Stopwatch()
        asyncio.run(at_once(lambda: workflow.arun(store=store), replace(work, jobs=2, at_once=1)))
        with watch.running():
            jobs = asyncio.run(at_once(lambda: workflow.arun(store=store), work))
        refuse_what_is_not_in_the_log(store, jobs, work.steps)
        return Measured(work.jobs * work.steps, watch.seconds, durability_of(store), warm_up=2 * work.steps)


def refuse_what_is_not_in_the_log(store: Store, jobs: list[JobHandle[Any]], steps: int) -> None:
    """Each step must be there twice: that it started and that it completed."""
    for job in jobs:
        types = Counter(event.type for event in store.read(job.job_id))
        found = (job.status, types["SubStepStarted"], types["SubStepCompleted"])
        if found != ("completed", steps, steps):
            raise RuntimeError(f"job {job.job_id} is not what was to be measured: {found}")


if __name__ == "__main__":
    main(measure)
