"""Submitting: a job is stored, and any worker that has its workflow runs it when it is due."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar

from steplog.engine.config import store_url
from steplog.engine.context import fields_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import ValueRefused
from steplog.engine.jobs import as_of_holder, recorded_input
from steplog.engine.observing import traceparent_of
from steplog.engine.operators import until_known
from steplog.engine.plan import outset_of, plan_of
from steplog.engine.store_clock import store_clock
from steplog.engine.values import input_hash
from steplog.engine.vault import Vault, new_vault
from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import Clock, SystemClock, instant
from steplog.eventstore.codec import check_name
from steplog.eventstore.connect import open_store
from steplog.eventstore.errors import KeyConflict, PayloadRefused, StoreError
from steplog.eventstore.events import JobCreated
from steplog.eventstore.store import NewJob, Store
from steplog.projections.evolve import foreseen
from steplog.projections.head import head_of
from steplog.projections.job_rules import begin

if TYPE_CHECKING:
    from steplog.eventstore.postgres_submitting import AsyncConnection, Connection

CHUNK_JOBS = 500
"""How many jobs of a batch one transaction stores."""

_PRIORITY_MAX = (1 << 31) - 1

T = TypeVar("T")


class How(TypedDict, total=False):
    """How a job is submitted, beside its input."""

    key: str | None
    """At most one job of the workflow has it: the same input again is that job, another one is refused."""
    priority: int
    """Those with a higher one are claimed first."""
    run_at: datetime | None
    """Not before; with a time zone."""
    tags: Mapping[str, str]
    """What lists may filter on."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One job of a batch."""

    input: Any = None
    key: str | None = None
    priority: int = 0
    run_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class Batch(NamedTuple):
    """Jobs that were submitted together: its id, and theirs in the order given."""

    batch_id: str
    job_ids: list[str]


def submit(definition: AnyDefinition, input: Any = None, *, store: Store | str | None = None, **how: Any) -> str:
    """Store a job and return its id. See `Workflow.submit`."""
    with _opened(store) as opened:
        job_id = create(opened, definition, Submission(input, **how), store_clock(opened)).job_id
        opened.hint()
        return job_id


class Created(NamedTuple):
    """The job that was submitted, and whether it was not there before."""

    job_id: str
    is_new: bool


def create(store: Store, definition: AnyDefinition, submission: Submission, clock: Clock) -> Created:
    """Store the job, or find the one that has its key and the same input. Raises as `Workflow.submit` does."""
    job = new_job(definition, submission, clock)
    try:
        found = until_known(lambda: store.create(job))
    except KeyConflict as conflict:
        key = store.data_keys.find(conflict.job_id)
        same = as_of_holder(definition, submission.input, job, conflict, key)
        found = until_known(lambda: store.create(same))
    return Created(found, found == job.job_id)


def submit_inside(
    connection: Connection, definition: AnyDefinition, input: Any, *, schema: str = "steplog", **how: Any
) -> str:
    """The same inside the caller's own transaction: the job is there if and when that commits."""
    from steplog.eventstore.postgres_submitting import create_inside, data_key_inside

    job = new_job(definition, Submission(input, **how), SystemClock())
    try:
        return create_inside(connection, job, schema)
    except KeyConflict as conflict:
        key = data_key_inside(connection, conflict.job_id, schema)
        return create_inside(connection, as_of_holder(definition, input, job, conflict, key), schema)


async def asubmit_inside(
    connection: AsyncConnection,
    definition: AnyDefinition,
    input: Any,
    *,
    schema: str = "steplog",
    **how: Any,
) -> str:
    """The same for an asynchronous connection."""
    from steplog.eventstore.postgres_submitting import acreate_inside, adata_key_inside

    job = new_job(definition, Submission(input, **how), SystemClock())
    try:
        return await acreate_inside(connection, job, schema)
    except KeyConflict as conflict:
        key = await adata_key_inside(connection, conflict.job_id, schema)
        return await acreate_inside(connection, as_of_holder(definition, input, job, conflict, key), schema)


def submit_many(
    definition: AnyDefinition, inputs: Iterable[Any], *, batch: str | None = None, store: Store | str | None = None
) -> Batch:
    """Store many jobs as one batch. See `Workflow.submit_many`."""
    with _opened(store) as opened:
        clock = store_clock(opened)
        batch_id = clock.new_id() if batch is None else check_name(batch, "batch")
        named = batch is not None
        submissions = (_of_batch(each, batch_id if named else None, place) for place, each in enumerate(inputs))
        job_ids: list[str] = []
        for chunk in _chunks(submissions):
            jobs = [new_job(definition, each, clock, batch_id) for each in chunk]
            job_ids += _stored(opened, definition, chunk, jobs)
        opened.hint()
        return Batch(batch_id, job_ids)


def _stored(store: Store, definition: AnyDefinition, chunk: list[Submission], jobs: list[NewJob]) -> list[str]:
    outcomes = until_known(lambda: store.create_many(jobs))
    again = list(jobs)
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, KeyConflict):
            key = store.data_keys.find(outcome.job_id)
            again[place] = as_of_holder(definition, chunk[place].input, jobs[place], outcome, key)
    if any(isinstance(outcome, KeyConflict) for outcome in outcomes):
        outcomes = until_known(lambda: store.create_many(again))
    return [_id_of(outcome) for outcome in outcomes]


def _id_of(outcome: str | StoreError) -> str:
    if isinstance(outcome, StoreError):
        raise outcome
    return outcome


def _of_batch(given: Any, batch_id: str | None, place: int) -> Submission:
    """In a batch with a name of its own each job has a key, so that the same batch again is stored once."""
    submission = given if isinstance(given, Submission) else Submission(given)
    if batch_id is None or submission.key is not None:
        return submission
    return Submission(submission.input, f"{batch_id}/{place}", submission.priority, submission.run_at, submission.tags)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, CHUNK_JOBS)):
        yield chunk


# --- a job's first event ---------------------------------------------------------------------------------------------


def new_job(definition: AnyDefinition, submission: Submission, clock: Clock, batch_id: str | None = None) -> NewJob:
    """A job that nobody owns. Raises InputRefused, PayloadRefused, ValueRefused."""
    vault = new_vault(clock.new_id())
    created = created_by(definition, submission, vault, batch_id)
    job_id, at = vault.job_id, clock.now()
    outset = outset_of(definition)
    state = begin(foreseen(created, job_id, 1, at), outset)
    events = seal(job_id, Position(), [created], at, clock, known={"plan": outset.encoded_plan})
    data_key = vault.key_of_new_job() if definition.declares_secrets else None
    return NewJob(job_id, events, head_of(state), input_hash(created.input), data_key=data_key)


def created_by(
    definition: AnyDefinition, submission: Submission, vault: Vault, batch_id: str | None = None
) -> JobCreated:
    """The event that a job of the definition begins with."""
    return JobCreated(
        workflow=definition.name,
        workflow_version=definition.version,
        plan=dict(plan_of(definition)),
        input=recorded_input(definition, submission.input, vault),
        context=fields_of(definition.context_type(), vault),
        key=None if submission.key is None else check_name(submission.key, "key"),
        tags=_checked_tags(submission.tags),
        priority=_checked_priority(submission.priority),
        run_at=_instant_of(submission.run_at),
        batch_id=batch_id,
        traceparent=traceparent_of(definition),
    )


def _checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    for name, value in tags.items():
        check_name(name, "tag")
        if not isinstance(value, str):
            raise PayloadRefused(f"tags.{name}", f"a tag's value is text, not {type(value).__name__}")
    return dict(tags)


def _checked_priority(priority: int) -> int:
    if type(priority) is not int or abs(priority) > _PRIORITY_MAX:
        raise ValueRefused("priority", [f"{priority!r} is no whole number between ±{_PRIORITY_MAX}"])
    return priority


def _instant_of(run_at: datetime | None) -> str | None:
    if run_at is None:
        return None
    if run_at.tzinfo is None:
        raise ValueRefused("run_at", [f"{run_at} has no time zone"])
    return instant(run_at.astimezone(UTC).timestamp())


@contextmanager
def _opened(store: Store | str | None) -> Iterator[Store]:
    """The store itself, or one that is opened for this alone."""
    if store is not None and not isinstance(store, str):
        yield store
        return
    opened = open_store(store or store_url())
    try:
        yield opened
    finally:
        opened.close()
