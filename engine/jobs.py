"""From an input to a finished job: create, claim, run, resume. What `Workflow.run` and the CLI are made of."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from steplog.engine.config import store_url
from steplog.engine.context import fields_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import InputRefused, Interrupted
from steplog.engine.handle import JobHandle
from steplog.engine.history import Loaded, load
from steplog.engine.plan import plan_of
from steplog.engine.runner import Owned, Runner
from steplog.engine.settings import Settings
from steplog.engine.values import adapter, dump
from steplog.engine.worker import Worker
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.codec import check_name, encode
from steplog.eventstore.connect import open_store
from steplog.eventstore.events import Event, EventData, JobClaimed, JobCreated
from steplog.eventstore.store import NewJob, Store
from steplog.projections.evolve import Evolution, evolve
from steplog.projections.head import head_of
from steplog.projections.state import ENDED, STOPPED, State

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
    with _opened(store) as opened:
        return _blocking(run_job(opened, definition, input, key=key, settings=settings, announce=announce))


async def run_here(
    definition: AnyDefinition, input: Any = None, *, key: str | None = None, store: Store | str | None = None
) -> JobHandle[Any]:
    """The same inside a running event loop."""
    with _opened(store) as opened:
        return await run_job(opened, definition, input, key=key)


def resume_blocking(
    definition: AnyDefinition, job_id: str, store: Store, *, by: str, settings: Settings | None = None
) -> JobHandle[Any]:
    """Take a job over and run it on; `by` says who resumes one that waits for a person.

    Raises JobNotFound, JobOwned while its owner lives, WrongState if it has ended, PlanMismatch, LogError.
    """

    async def resume() -> JobHandle[Any]:
        with Worker(store, settings=settings) as worker:
            owned = await asyncio.to_thread(lambda: worker.claim(job_id, definition, resume_by=by))
            return await _run_owned(worker, owned)

    return _blocking(resume())


async def run_job(
    store: Store,
    definition: AnyDefinition,
    input: Any,
    *,
    key: str | None = None,
    settings: Settings | None = None,
    announce: Announce = lambda job_id: None,
) -> JobHandle[Any]:
    """Create a job owned by a new worker and run it; with a key seen before, that job goes on instead."""
    recorded = recorded_input(definition, input)
    with Worker(store, settings=settings) as worker:
        owned, new_job = prepare(worker, definition, recorded, key)
        job_id = await asyncio.to_thread(store.create, new_job)
        announce(job_id)
        if job_id == new_job.job_id:
            return await _run_owned(worker, owned)
        known = await asyncio.to_thread(load, store, job_id)
        if known.state["status"] in ENDED | STOPPED:
            return JobHandle(known.state, definition)
        return await _run_owned(worker, await asyncio.to_thread(worker.claim, job_id, definition))


def recorded_input(definition: AnyDefinition, input: Any) -> Any:
    """The input as the log keeps it. Raises InputRefused with what does not fit, PayloadRefused with its path."""
    given = {} if input is None else input
    try:
        checked = adapter(definition.input_type).validate_python(given)
    except ValidationError as error:
        raise InputRefused(definition.name, [_problem(each) for each in error.errors()]) from error
    return dump(checked, definition.input_type, "input")


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def prepare(worker: Worker, definition: AnyDefinition, input: Any, key: str | None) -> tuple[Owned, NewJob]:
    """A job that is created and claimed in one append."""
    created = JobCreated(
        workflow=definition.name,
        workflow_version=definition.version,
        plan=dict(plan_of(definition)),
        input=input,
        context=fields_of(definition.context_type()),
        key=check_name(key, "key") if key is not None else None,
    )
    claim = worker.first_claim()
    claimed = JobClaimed(worker_id=claim.worker_id, epoch=claim.epoch, claim_id=claim.claim_id, reason="first")
    job_id, at = worker.clock.new_id(), worker.clock.now()
    evolution = Evolution(_created(job_id, created, at))
    evolution.foresee(claimed, at)
    state = evolution.state
    events = seal(job_id, Position(), [created, claimed], at, worker.clock)
    owned = Owned(Loaded(state, end_of(events, Position())), claim, definition)
    return owned, NewJob(job_id, events, head_of(state), sha256(encode(input)).hexdigest(), claim)


def _created(job_id: str, created: EventData, at: str) -> State:
    return evolve(None, Event(job_id, 1, "", created.type(), created.schema_version, at, created.as_data(), ""))


async def _run_owned(worker: Worker, owned: Owned) -> JobHandle[Any]:
    runner = worker.runner(owned)
    with _stopping_on_signals(runner, worker.settings.grace_s) as caught:
        try:
            state = await runner.run()
        except asyncio.CancelledError:
            runner.stop(0.0)
            await runner.run()
            raise
    if caught and state["status"] not in ENDED | STOPPED:
        raise Interrupted(state["job_id"], caught[0])
    return JobHandle(state, owned.definition)


@contextmanager
def _stopping_on_signals(runner: Runner, grace_s: float) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM hands the job back within the grace period, a second one at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def on_signal(number: int) -> None:
        runner.stop(0.0 if caught else grace_s)
        caught.append(number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield caught
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextmanager
def _opened(store: Store | str | None) -> Iterator[Store]:
    if store is not None and not isinstance(store, str):
        yield store
        return
    opened = open_store(store or store_url())
    try:
        yield opened
    finally:
        opened.close()


def _blocking(job: Coroutine[Any, Any, JobHandle[Any]]) -> JobHandle[Any]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(job)
    job.close()
    raise RuntimeError("run() was called inside a running event loop: write `await workflow.arun(…)` there")
