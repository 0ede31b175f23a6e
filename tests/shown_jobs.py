"""States and events of a job for tests of what is shown: a registration half-way, at instants that are easy to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from steplog.eventstore import events as ev
from steplog.eventstore.clock import later
from steplog.eventstore.events import Event, EventData
from steplog.projections.evolve import evolve
from steplog.projections.state import State

JOB_ID = "01a20953-b51b-7c13-a017-4a772713b617"
BEGAN = "2026-11-23T12:00:00.000000Z"

Timed = tuple[float, EventData]


def after(seconds: float) -> str:
    return later(BEGAN, seconds)


def step_plan(name: str, **changes: Any) -> dict[str, Any]:
    retry = {"attempts": 3, "wait_s": 1.0, "factor": 2.0, "wait_s_max": 60.0, "jitter": 0.0}
    plan = {"name": name, "after": [], "needs": [], "defaults": [], "optional": False, "when": False}
    return {**plan, "retry": retry, "on_interrupt": "retry", **changes}


PLAN = {
    "phases": [
        {"name": "phase1", "sub_steps": [step_plan("code_generation"), step_plan("create_user")]},
        {
            "name": "phase2",
            "description": "Configuration",
            "sub_steps": [
                step_plan("register"),
                step_plan("menu_import"),
                step_plan("website", when=True),
                step_plan("services", optional=True),
                step_plan("sync", after=["phase2/menu_import"]),
            ],
        },
        {"name": "phase3", "sub_steps": [step_plan("finish")]},
    ]
}

TIMEOUT = {"type": "TimeoutError", "message": "slow", "traceback": "Traceback …", "retryable": True}


def created(plan: dict[str, Any] = PLAN, **changes: Any) -> Timed:
    return 0.0, ev.JobCreated(workflow="registration", workflow_version="1", plan=plan, **changes)


def claimed() -> Timed:
    return 0.0, ev.JobClaimed(worker_id="worker", epoch=1, claim_id="claim", reason="first")


def started(seconds: float, key: str, attempt: int = 1) -> Timed:
    phase, _, name = key.partition("/")
    return seconds, ev.SubStepStarted(phase=phase, sub_step=name, attempt=attempt, idempotency_key="key")


def completed(seconds: float, key: str, took: float, attempt: int = 1, result: Any = None) -> Timed:
    phase, _, name = key.partition("/")
    return seconds, ev.SubStepCompleted(phase=phase, sub_step=name, attempt=attempt, seconds=took, result=result)


def failed(seconds: float, key: str, took: float, error: dict[str, Any], attempt: int = 1) -> Timed:
    phase, _, name = key.partition("/")
    return seconds, ev.SubStepFailed(phase=phase, sub_step=name, attempt=attempt, seconds=took, error=error)


HALF_WAY: list[Timed] = [
    created(),
    claimed(),
    (0.0, ev.PhaseStarted(phase="phase1")),
    started(0.0, "phase1/code_generation"),
    started(0.0, "phase1/create_user"),
    completed(0.4, "phase1/create_user", 0.4),
    completed(8.1, "phase1/code_generation", 8.1),
    (8.1, ev.PhaseCompleted(phase="phase1")),
    (8.1, ev.PhaseStarted(phase="phase2")),
    started(8.1, "phase2/register"),
    started(8.1, "phase2/menu_import"),
    started(8.1, "phase2/services"),
    (8.1, ev.SubStepSkipped(phase="phase2", sub_step="website", cause="condition", reason="no code_files")),
    completed(9.3, "phase2/register", 1.2),
    failed(9.5, "phase2/services", 0.2, {"type": "HTTPError", "message": "502", "retryable": False}),
    failed(48.0, "phase2/menu_import", 39.9, TIMEOUT),
    (
        48.0,
        ev.SubStepRetryScheduled(phase="phase2", sub_step="menu_import", attempt=2, retry_at=after(53.0)),
    ),
]


def events_of(facts: Iterable[Timed]) -> list[Event]:
    """The events of a job, recorded so many seconds after its beginning."""
    return [
        Event(JOB_ID, version, f"event-{version}", data.type(), 1, after(seconds), data.as_data(), f"hash-{version}")
        for version, (seconds, data) in enumerate(facts, start=1)
    ]


def state_of(facts: Iterable[Timed]) -> State:
    """What the facts fold to."""
    state: State | None = None
    for event in events_of(facts):
        state = evolve(state, event)
    assert state is not None
    return state
