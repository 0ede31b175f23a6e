"""Putting a job into the queue for whoever asked by HTTP, who wants to know whether it was there before."""

from __future__ import annotations

from typing import Any, NamedTuple

from steplog.engine.definition import AnyDefinition
from steplog.engine.operators import until_known
from steplog.engine.store_clock import store_clock
from steplog.engine.submitting import Submission, new_job
from steplog.eventstore.store import Store


class Submitted(NamedTuple):
    """The job, and whether it was not there before."""

    job_id: str
    created: bool


def submit(store: Store, definition: AnyDefinition, input: Any, **how: Any) -> Submitted:
    """Create the job, or find the one of that key. Raises InputRefused, PayloadRefused, KeyConflict."""
    job = new_job(definition, Submission(input, **how), store_clock(store))
    found = until_known(lambda: store.create(job))
    store.hint()
    return Submitted(found, found == job.job_id)
