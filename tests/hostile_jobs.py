"""Jobs that are hard on whoever shows them: one that holds a text in everything a job can hold, and one without end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shown_jobs import step_plan

from steplog.eventstore import events as ev
from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.events import Event, EventData
from steplog.eventstore.store import Claim, NewJob, Store, StoredState
from steplog.projections.evolve import Evolution, evolve
from steplog.projections.head import head_of
from steplog.projections.state import REDUCER_VERSION

STORED_EVERY = 500
"""As `Settings.store_state_every` has it."""


def create_hostile(store: Store, text: str) -> str:
    """The id of such a job: one sub-step failed, one waits to be retried, one is done, and it failed."""
    name = "".join(character for character in text if character >= " ")[:200]
    phase = name.replace("/", "|")
    of: dict[str, Any] = {"phase": phase, "attempt": 1}
    error = {"type": name, "message": text, "traceback": text, "retryable": True}
    plan = {"phases": [{"name": phase, "description": text, "sub_steps": [
        step_plan(name), step_plan(f"{name} 2", after=[f"{phase}/{name}"]), step_plan(f"{name} 3", optional=True),
    ]}]}  # fmt: skip
    data: list[EventData] = [
        ev.JobCreated(
            workflow=name, workflow_version=text, plan=plan, input={name: text}, key=name, tags={name: text},
            context={name: text},
        ),
        ev.JobClaimed(worker_id=name, epoch=1, claim_id="c", reason="first"),
        ev.PhaseStarted(phase=phase),
        ev.SubStepStarted(**of, sub_step=name, idempotency_key=text),
        ev.SubStepStarted(**of, sub_step=f"{name} 3", idempotency_key=text),
        ev.SubStepProgressed(**of, sub_step=name, done=1, total=2, note=text),
        ev.SubStepLogged(**of, sub_step=name, lines=[text]),
        ev.SubStepCheckpointed(**of, sub_step=name, cursor=text),
        ev.SignalReceived(name=name, payload=text, signal_id=name, by=name),
        ev.ContextChanged(set={name: [text]}, by=name, reason=text),
        ev.SubStepCompleted(**of, sub_step=f"{name} 3", result=text, seconds=1.0),
        ev.SubStepFailed(**of, sub_step=name, error=error, seconds=1.0),
        ev.PhaseFailed(phase=phase, failed=[f"{phase}/{name}"]),
        ev.JobFailed(error=error, phase=phase, sub_step=name),
    ]  # fmt: skip
    return _created(store, data)


def create_long(store: Store, events: int, claim: Claim | None = None) -> str:
    """The id of a running job of so many events: one sub-step done, another one that reports and reports."""
    owner = claim or Claim("w", 1, "c")
    of: dict[str, Any] = {"phase": "main", "attempt": 1}
    data: list[EventData] = [
        ev.JobCreated(
            workflow="long", workflow_version="1", context={"note": ""},
            plan={"phases": [{"name": "main", "sub_steps": [step_plan("first"), step_plan("second")]}]},
        ),
        ev.JobClaimed(worker_id=owner.worker_id, epoch=1, claim_id=owner.claim_id, reason="first"),
        ev.PhaseStarted(phase="main"),
        ev.SubStepStarted(**of, sub_step="first", idempotency_key="k1"),
        ev.SubStepCompleted(**of, sub_step="first", result=1, seconds=1.0),
        ev.SubStepStarted(**of, sub_step="second", idempotency_key="k2"),
    ]  # fmt: skip
    left = range(len(data), events)
    data += [ev.SubStepProgressed(**of, sub_step="second", done=at, total=events, note="rows") for at in left]
    return _created(store, data, claim)


def _created(store: Store, data: Sequence[EventData], claim: Claim | None = None) -> str:
    """The id of a job with those events; of a long one the states are stored that its owner would have stored."""
    clock = SystemClock()
    job_id, at = clock.new_id(), store.now()
    first = data[0]
    state = evolve(None, Event(job_id, 1, "", first.type(), first.schema_version, at, first.as_data(), ""))
    evolution = Evolution(state)
    events = seal(job_id, Position(), data, at, clock)
    kept = []
    for event, each in zip(events[1:], data[1:], strict=True):
        evolution.foresee(each, at)
        if event.version % STORED_EVERY == 0:
            place = Position(event.version, event.hash, event.recorded_at)
            kept.append(StoredState(job_id, place, REDUCER_VERSION, dict(evolution.state)))
    made = store.create(NewJob(job_id, events, head_of(evolution.state), "0" * 64, claim))
    for stored in kept[-2:]:
        store.save_state(stored)
    return made
