"""From an input to a finished job: create, claim, run, resume. What `Workflow.run` and the CLI are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from steplog.engine.blocking import run_to_the_end
from steplog.engine.context import fields_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import InputRefused, Interrupted, OwnershipLost, PlanMismatch, RunCancelled, SecretsClosed
from steplog.engine.handle import JobHandle
from steplog.engine.history import Loaded, load
from steplog.engine.observing import traceparent_of
from steplog.engine.plan import outset_of, plan_of
from steplog.engine.runner import Owned
from steplog.engine.scrubbing import scrubbed
from steplog.engine.secret_values import given_texts
from steplog.engine.settings import Settings
from steplog.engine.shared import worker_for
from steplog.engine.threads import finished
from steplog.engine.values import Seals, adapter, dump, input_hash, problems_of, validated
from steplog.engine.vault import Vault, new_vault, vault_of, vault_with
from steplog.engine.worker import Worker
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.codec import check_name
from steplog.eventstore.data_keys import DataKey
from steplog.eventstore.errors import JobOwned, KeyConflict, PayloadRefused, WrongState
from steplog.eventstore.events import JobClaimed, JobCreated
from steplog.eventstore.store import NewJob, Store
from steplog.eventstore.writer import CLOSING_S_MAX
from steplog.projections.evolve import Evolution, foreseen
from steplog.projections.head import head_of
from steplog.projections.job_rules import begin
from steplog.projections.state import ENDED, STOPPED, State

_BEGINS_WITHIN_S = 5.0
"""How long after its claim a job's run may take to begin in the worker that has claimed it."""
_LOOK_AGAIN_S = 0.02

_OWNS_NOTHING = (KeyConflict, JobOwned, WrongState, PlanMismatch, SecretsClosed, PayloadRefused)

Announce = Callable[[str], None]
"""Called with the job's id as soon as it is known and durable."""


def run_blocking(
    definition: AnyDefinition,
    input: Any = None,
    *,
    key: str | None = None,
    store: Store | str | None = None,
    settings: Settings | None = None,
    announce: Announce = lambda job_id: None,
) -> JobHandle[Any]:
    """Run a job of the definition to where it ends or stops. See `Workflow.run`."""
    running = run_here(definition, input, key=key, store=store, settings=settings, announce=announce)
    return run_to_the_end(running, grace_s=(settings or Settings()).grace_s)


async def run_here(
    definition: AnyDefinition,
    input: Any = None,
    *,
    key: str | None = None,
    store: Store | str | None = None,
    settings: Settings | None = None,
    announce: Announce = lambda job_id: None,
) -> JobHandle[Any]:
    """The same inside a running event loop; runs on one store that are awaited together share their commits."""
    checked = checked_input(definition, input)
    async with worker_for(store, settings) as worker:
        return await _create_and_run(worker, definition, checked, key, announce)


def resume_blocking(
    definition: AnyDefinition,
    job_id: str,
    store: Store,
    *,
    by: str,
    adopt_plan: bool = False,
    settings: Settings | None = None,
) -> JobHandle[Any]:
    """Take a job over and run it on; `by` says who resumes one that waits for a person.

    With `adopt_plan` it goes on with the plan that the code has now, where that is sound, else raises PlanNotAdopted.

    Raises JobNotFound, JobOwned while its owner lives, WrongState if it has ended, PlanMismatch,
    DataMismatch, LogError.
    """

    async def resume() -> JobHandle[Any]:
        async with worker_for(store, settings) as worker:
            adopt_by = by if adopt_plan else None
            claim = partial(worker.claim, job_id, definition, resume_by=by, adopt_by=adopt_by)
            with _leaving_nothing_behind(worker):
                owned = await finished(worker.outbox().call(claim), CLOSING_S_MAX)
            return await _run_owned(worker, owned)

    return run_to_the_end(resume(), grace_s=(settings or Settings()).grace_s)


async def _create_and_run(
    worker: Worker, definition: AnyDefinition, input: Any, key: str | None, announce: Announce
) -> JobHandle[Any]:
    """Create a job that the worker owns and run it; with a key seen before, that job goes on instead."""
    vault = new_vault(worker.clock.new_id())
    owned, new_job = prepare(worker, definition, recorded_input(definition, input, vault), key, vault)
    with _leaving_nothing_behind(worker):
        try:
            job_id = await finished(worker.outbox().create(new_job), CLOSING_S_MAX)
        except KeyConflict as conflict:
            data_key = await worker.outbox().call(worker.store.data_keys.find, conflict.job_id)
            again = as_of_holder(definition, input, new_job, conflict, data_key)
            job_id = await finished(worker.outbox().create(again), CLOSING_S_MAX)
        announce(job_id)
        vault.keep_in(worker.store.data_keys)
    if job_id == new_job.job_id:
        return await _run_owned(worker, owned)
    return await _run_known(worker, definition, job_id)


async def _run_known(worker: Worker, definition: AnyDefinition, job_id: str) -> JobHandle[Any]:
    """Run a job that was there before, unless it is through; where this worker runs it, wait for that."""
    until = worker.clock.monotonic() + _BEGINS_WITHIN_S
    while True:
        if (joined := await worker.join(job_id)) is not None:
            until = worker.clock.monotonic() + _BEGINS_WITHIN_S
        state = joined or (await worker.outbox().call(load, worker.store, job_id)).state
        if state["status"] in ENDED | STOPPED or worker.stopped_by is not None:
            break  # else it only waits, and was given back meanwhile
        try:
            with _leaving_nothing_behind(worker):
                owned = await finished(worker.outbox().call(worker.claim, job_id, definition), CLOSING_S_MAX)
        except JobOwned as owned_already:
            if owned_already.worker_id != worker.worker_id or worker.clock.monotonic() > until:
                raise
            await asyncio.sleep(_LOOK_AGAIN_S)  # claimed a moment ago, and about to run
        except WrongState as over:
            if over.status not in ENDED | STOPPED:  # else it came to that since it was read
                raise
        else:
            return await _run_owned(worker, owned)
    vault = await worker.outbox().call(vault_of, worker.store, job_id, definition)
    return _handle(worker, state, definition, vault)


def as_of_holder(
    definition: AnyDefinition, input: Any, job: NewJob, conflict: KeyConflict, data_key: DataKey | None
) -> NewJob:
    """The job once more, its input as the job would have sealed it that holds its key, and whose data key that is.

    Raises the conflict where that changes nothing, SecretsClosed, and SecretsErased where it cannot be told any more.
    """
    if job.data_key is None or data_key is None:
        raise conflict
    return replace(
        job, input_hash=input_hash(recorded_input(definition, input, vault_with(data_key.job_id, [data_key])))
    )


@contextmanager
def _leaving_nothing_behind(worker: Worker) -> Iterator[None]:
    """What breaks off in here may leave a job owned and without a runner: the worker then ends as soon as it can."""
    try:
        yield
    except _OWNS_NOTHING:
        raise
    except BaseException:
        worker.takes_more = False
        raise


def checked_input(definition: AnyDefinition, input: Any) -> Any:
    """The input, typed. Raises InputRefused with what does not fit."""
    given = {} if input is None else input
    try:
        return validated(adapter(definition.input_type).validate_python, given)
    except ValidationError as error:
        texts = tuple(given_texts(given, definition.input_type))
        problems = [scrubbed(problem, texts) for problem in problems_of(error)]
        # Pydantic's own words show the input.
        raise InputRefused(definition.name, problems) from (None if texts else error)


def recorded_input(definition: AnyDefinition, input: Any, vault: Seals | None = None) -> Any:
    """The input as the log keeps it. Raises InputRefused with what does not fit, PayloadRefused with its path."""
    return dump(checked_input(definition, input), definition.input_type, "input", vault)


def prepare(
    worker: Worker, definition: AnyDefinition, input: Any, key: str | None, vault: Vault | None = None
) -> tuple[Owned, NewJob]:
    """A job that is created and claimed in one append; its input is as it is recorded, sealed by that vault."""
    vault = vault or new_vault(worker.clock.new_id())
    created = JobCreated(
        workflow=definition.name,
        workflow_version=definition.version,
        plan=dict(plan_of(definition)),
        input=input,
        context=fields_of(definition.context_type(), vault),
        key=check_name(key, "key") if key is not None else None,
        traceparent=traceparent_of(definition),
    )
    claim = worker.first_claim()
    claimed = JobClaimed(worker_id=claim.worker_id, epoch=claim.epoch, claim_id=claim.claim_id, reason="first")
    job_id, at = vault.job_id, worker.clock.now()
    outset = outset_of(definition)
    evolution = Evolution(begin(foreseen(created, job_id, 1, at), outset))
    evolution.foresee(claimed, at)
    state = evolution.state
    events = seal(job_id, Position(), [created, claimed], at, worker.clock, known={"plan": outset.encoded_plan})
    data_key = vault.key_of_new_job() if definition.declares_secrets else None
    owned = Owned(Loaded(state, end_of(events, Position())), claim, definition, vault)
    return owned, NewJob(job_id, events, head_of(state), input_hash(input), claim, data_key=data_key)


async def _run_owned(worker: Worker, owned: Owned) -> JobHandle[Any]:
    try:
        state = await worker.run(owned)
    except (asyncio.CancelledError, OwnershipLost):  # the job was handed back, or is another's
        raise
    except BaseException:
        worker.takes_more = False
        raise
    return _handle(worker, state, owned.definition, owned.vault)


def _handle(worker: Worker, state: State, definition: AnyDefinition, vault: Vault) -> JobHandle[Any]:
    """Of a job whose run has come to that.

    Raises Interrupted where it was handed back because of a signal, RunCancelled where somebody else cancelled it.
    """
    if state["status"] not in ENDED | STOPPED:
        stopped_by, job_id = worker.stopped_by, state["job_id"]
        raise RunCancelled(job_id) if stopped_by is None else Interrupted(job_id, stopped_by)
    return JobHandle(state, definition, vault)
