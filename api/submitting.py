"""Putting a job into the queue: created, owned by nobody, due at once or at its time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from steplog.engine.context import fields_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.jobs import recorded_input
from steplog.engine.operators import store_clock, until_known
from steplog.engine.plan import plan_of
from steplog.engine.values import input_hash
from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import instant
from steplog.eventstore.codec import check_name
from steplog.eventstore.events import Event, JobCreated
from steplog.eventstore.store import NewJob, Store
from steplog.projections.evolve import evolve
from steplog.projections.head import head_of


class Submission(NamedTuple):
    """The job, and whether it was not there before."""

    job_id: str
    created: bool


def submit(
    store: Store,
    definition: AnyDefinition,
    input: Any,
    *,
    key: str | None = None,
    tags: Mapping[str, str] | None = None,
    priority: int = 0,
    run_at: datetime | None = None,
) -> Submission:
    """Create the job, or find the one of that key. Raises InputRefused, PayloadRefused, KeyConflict."""
    recorded = recorded_input(definition, input)
    created = JobCreated(
        workflow=definition.name,
        workflow_version=definition.version,
        plan=dict(plan_of(definition)),
        input=recorded,
        context=fields_of(definition.context_type()),
        key=check_name(key, "key") if key is not None else None,
        tags={check_name(name, "tag"): value for name, value in (tags or {}).items()},
        priority=priority,
        run_at=None if run_at is None else instant(run_at.timestamp()),
    )
    clock = store_clock(store)
    job_id, at = clock.new_id(), clock.now()
    events = seal(job_id, Position(), [created], at, clock)
    state = evolve(None, Event(job_id, 1, "", created.type(), created.schema_version, at, created.as_data(), ""))
    new_job = NewJob(job_id, events, head_of(state), input_hash(recorded))
    found = until_known(lambda: store.create(new_job))
    return Submission(found, found == job_id)
