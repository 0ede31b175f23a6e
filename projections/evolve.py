"""`evolve` and `fold`: from a job's events to its state. Pure and total over the catalogue: an event without a rule,
or one that does not fit the state, is reported by job and version and never skipped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

from steplog.eventstore.errors import DamagedLog, JobNotFound, UnknownEvent
from steplog.eventstore.events import Event, EventData
from steplog.projections.state import SETTLED, PhaseState, State, SubStepState, Wait, new_phases, new_sub_step

Rule = Callable[[State, Event, dict[str, Any]], None]

LAST_ERROR_CHARS_MAX = 500

OPERATOR = ""
"""The writer of context fields that no sub-step wrote."""


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """The state after `events`, from the beginning or from a state that stood before them.

    Raises DamagedLog or UnknownEvent by job and version, JobNotFound where there is neither event nor state.
    """
    folded = copy.deepcopy(state)
    for event in events:
        folded = _apply(folded, event)
    if folded is None:
        raise JobNotFound("without events")
    return folded


def evolve(state: State | None, event: Event) -> State:
    """The state after one event; the state before it stays as it was, and shares what did not change."""
    return _apply(_own(state, event) if state else None, event)


def foresee(state: State, data: EventData, at: str) -> State:
    """The state that an event not yet written will lead to; ids and hash, which no fold looks at, come later."""
    version = state["version"] + 1
    event = Event(state["job_id"], version, "", data.type(), data.schema_version, at, data.as_data(), "")
    return evolve(state, event)


def _apply(state: State | None, event: Event) -> State:
    """Change an owned state in place."""
    try:
        if state is None:
            state = _begin(event)
        else:
            rule = _RULES.get(event.type)
            if rule is None:
                raise UnknownEvent(event.job_id, event.version, f"no rule to fold {event.type!r}")
            if event.version != state["version"] + 1:
                raise DamagedLog(event.job_id, event.version, f"does not follow version {state['version']}")
            rule(state, event, event.data)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DamagedLog(event.job_id, event.version, f"{event.type} does not fit the state: {error!r}") from error
    state["version"] = event.version
    state["recorded_at"] = event.recorded_at
    return state


def _own(state: State, event: Event) -> State:
    """A state that may be changed by this event without anybody noticing: what it touches is copied."""
    if event.type in _WIDE:
        return copy.deepcopy(state)
    owned = state.copy()
    data = event.data
    if "phase" in data and data["phase"] in state["phases"]:
        phase = state["phases"][data["phase"]].copy()
        owned["phases"] = {**state["phases"], data["phase"]: phase}
        if data.get("sub_step") in phase["sub_steps"]:
            phase["sub_steps"] = phase["sub_steps"].copy()
            phase["sub_steps"][data["sub_step"]] = phase["sub_steps"][data["sub_step"]].copy()
    if event.type == "ContextChanged":
        owned["context"] = state["context"].copy()
        owned["writers"] = {name: writers.copy() for name, writers in state["writers"].items()}
    return owned


# --- the job ---------------------------------------------------------------------------------------------------------


def _begin(event: Event) -> State:
    if event.type not in ("JobCreated", "JobForked"):
        raise DamagedLog(event.job_id, event.version, f"a log begins with JobCreated or JobForked, not {event.type}")
    data = event.data
    context = dict(data.get("context", {}))
    return State(
        job_id=event.job_id,
        version=event.version,
        recorded_at=event.recorded_at,
        created_at=event.recorded_at,
        ended_at=None,
        workflow=data["workflow"],
        workflow_version=data["workflow_version"],
        mode=data.get("mode", "engine"),
        plan=data["plan"],
        input=data.get("input"),
        key=data.get("key"),
        tags=data.get("tags", {}),
        priority=data.get("priority", 0),
        run_at=data.get("run_at"),
        batch_id=data.get("batch_id"),
        traceparent=data.get("traceparent"),
        origin=_origin(data) if event.type == "JobForked" else None,
        status="queued",
        reason=None,
        error=None,
        warnings=[],
        worker_id=None,
        epoch=0,
        wake_at=data.get("run_at"),
        requested=None,
        context=context,
        writers={name: {OPERATOR: event.version} for name in context},
        signals={},
        last_error=None,
        done=0,
        total=sum(len(phase["sub_steps"]) for phase in data["plan"]["phases"]),
        phases=new_phases(data["plan"]),
    )


def _origin(data: dict[str, Any]) -> dict[str, Any]:
    return {"job_id": data["from_job_id"], "version": data["from_version"], "inherited": data["inherited"]}


def _job_claimed(state: State, event: Event, data: dict[str, Any]) -> None:
    state["status"] = "running"
    state["worker_id"] = data["worker_id"]
    state["epoch"] = data["epoch"]
    state["wake_at"] = None


def _job_released(state: State, event: Event, data: dict[str, Any]) -> None:
    state["wake_at"] = data.get("wake_at")
    state["status"] = "waiting" if state["wake_at"] else "queued"
    state["worker_id"] = None


def _requested(what: str) -> Rule:
    def rule(state: State, event: Event, data: dict[str, Any]) -> None:
        state["requested"] = what

    return rule


def _job_paused(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "paused", data.get("reason"))


def _job_parked(state: State, event: Event, data: dict[str, Any]) -> None:
    detail = data.get("detail")
    _stop(state, "parked", f"{data['reason']}: {detail}" if detail else data["reason"])


def _job_failed(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "failed", None)
    state["error"] = {**data["error"], "phase": data["phase"], "sub_step": data["sub_step"]}


def _stop(state: State, status: Any, reason: str | None) -> None:
    state["status"] = status
    state["reason"] = reason
    state["worker_id"] = None
    state["requested"] = None


def _job_resumed(state: State, event: Event, data: dict[str, Any]) -> None:
    _go_on(state)
    for phase in state["phases"].values():
        if phase["status"] == "failed":
            phase["status"] = "in_progress"
            phase["completed_at"] = None
        for name, sub_step in phase["sub_steps"].items():
            sub_step["interruptions"] = 0
            sub_step["refused"] = None
            if sub_step["status"] == "failed" and phase["status"] != "completed" and not _optional(state, phase, name):
                _unsettle(state, phase, sub_step)
                sub_step["failures"] = 0


def _optional(state: State, phase: PhaseState, name: str) -> bool:
    plans = next(plan for plan in state["plan"]["phases"] if state["phases"][plan["name"]] is phase)
    return next(step["optional"] for step in plans["sub_steps"] if step["name"] == name)


def _go_on(state: State) -> None:
    state["status"] = "queued"
    state["reason"] = None
    state["error"] = None
    state["requested"] = None
    state["ended_at"] = None


def _job_reopened(state: State, event: Event, data: dict[str, Any]) -> None:
    _go_on(state)


def _job_cancelled(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "cancelled", data.get("reason"))
    state["ended_at"] = event.recorded_at


def _job_completed(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "completed", None)
    state["warnings"] = data.get("warnings", [])
    state["ended_at"] = event.recorded_at


def _plan_adopted(state: State, event: Event, data: dict[str, Any]) -> None:
    before = state["phases"]
    state["plan"] = data["plan"]
    state["workflow_version"] = data["workflow_version"]
    state["phases"] = new_phases(data["plan"])
    state["total"] = state["done"] = 0
    for name, phase in state["phases"].items():
        if name in before:
            phase["status"] = before[name]["status"]
            phase["started_at"] = before[name]["started_at"]
            phase["completed_at"] = before[name]["completed_at"]
            kept = {step: old for step, old in before[name]["sub_steps"].items() if step in phase["sub_steps"]}
            phase["sub_steps"].update(kept)
        settled = sum(step["status"] in SETTLED for step in phase["sub_steps"].values())
        phase["unsettled"] = len(phase["sub_steps"]) - settled
        state["done"] += settled
        state["total"] += len(phase["sub_steps"])


# --- the phase -------------------------------------------------------------------------------------------------------


def _phase_started(state: State, event: Event, data: dict[str, Any]) -> None:
    phase = state["phases"][data["phase"]]
    phase["status"] = "in_progress"
    phase["started_at"] = phase["started_at"] or event.recorded_at


def _phase_ended(status: Any) -> Rule:
    def rule(state: State, event: Event, data: dict[str, Any]) -> None:
        phase = state["phases"][data["phase"]]
        phase["status"] = status
        phase["completed_at"] = event.recorded_at

    return rule


# --- the sub-step ----------------------------------------------------------------------------------------------------


def _sub_step(state: State, data: dict[str, Any]) -> tuple[PhaseState, SubStepState]:
    phase = state["phases"][data["phase"]]
    return phase, phase["sub_steps"][data["sub_step"]]


def _settle(state: State, data: dict[str, Any], event: Event, status: Any) -> SubStepState:
    phase, sub_step = _sub_step(state, data)
    if sub_step["status"] not in SETTLED:
        phase["unsettled"] -= 1
        state["done"] += 1
    sub_step["status"] = status
    sub_step["completed_at"] = event.recorded_at
    sub_step["retry_at"] = None
    sub_step["wait"] = None
    return sub_step


def _unsettle(state: State, phase: PhaseState, sub_step: SubStepState) -> None:
    if sub_step["status"] in SETTLED:
        phase["unsettled"] += 1
        state["done"] -= 1
    sub_step["status"] = "pending"
    sub_step["completed_at"] = None


def _sub_step_started(state: State, event: Event, data: dict[str, Any]) -> None:
    _, sub_step = _sub_step(state, data)
    if sub_step["attempts"] + 1 != data["attempt"]:
        raise DamagedLog(event.job_id, event.version, f"attempt {data['attempt']} follows {sub_step['attempts']}")
    sub_step["status"] = "in_progress"
    sub_step["attempts"] = data["attempt"]
    sub_step["when"] = data.get("when", sub_step["when"])
    sub_step["started_at"] = sub_step["started_at"] or event.recorded_at
    sub_step["started_version"] = event.version
    sub_step["idempotency_key"] = data["idempotency_key"]
    sub_step["retry_at"] = None
    sub_step["wait"] = None
    sub_step["reason"] = None


def _sub_step_waiting(state: State, event: Event, data: dict[str, Any]) -> None:
    _, sub_step = _sub_step(state, data)
    sub_step["status"] = "waiting"
    sub_step["started_at"] = sub_step["started_at"] or event.recorded_at
    sub_step["wait"] = Wait(kind=data["kind"], until=data.get("until"), signal=data.get("signal"))


def _sub_step_progressed(state: State, event: Event, data: dict[str, Any]) -> None:
    _, sub_step = _sub_step(state, data)
    sub_step["progress"] = {name: data[name] for name in ("done", "total", "note") if name in data}


def _unseen(state: State, event: Event, data: dict[str, Any]) -> None:
    """A fact that the timeline shows and nothing else depends on."""


def _sub_step_checkpointed(state: State, event: Event, data: dict[str, Any]) -> None:
    _, sub_step = _sub_step(state, data)
    sub_step["cursor"] = data.get("cursor")
    sub_step["draft"] = data.get("draft")


def _sub_step_completed(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _settle(state, data, event, "completed")
    sub_step["result"] = data.get("result")
    sub_step["seconds"] = data["seconds"]
    sub_step["error"] = None
    sub_step["refused"] = data.get("context_refused")
    sub_step["cursor"] = sub_step["draft"] = None


def _sub_step_failed(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _settle(state, data, event, "failed")
    sub_step["error"] = data["error"]
    sub_step["seconds"] = data["seconds"]
    sub_step["failures"] += 1
    error = f"{data['sub_step']}: {data['error'].get('type')}: {data['error'].get('message')}"
    state["last_error"] = error[:LAST_ERROR_CHARS_MAX]


def _sub_step_retry_scheduled(state: State, event: Event, data: dict[str, Any]) -> None:
    phase, sub_step = _sub_step(state, data)
    _unsettle(state, phase, sub_step)
    sub_step["status"] = "retrying"
    sub_step["retry_at"] = data["retry_at"]


def _sub_step_skipped(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _settle(state, data, event, "skipped")
    sub_step["reason"] = data["reason"]


def _sub_step_interrupted(state: State, event: Event, data: dict[str, Any]) -> None:
    _, sub_step = _sub_step(state, data)
    sub_step["status"] = "interrupted"
    sub_step["reason"] = data["cause"]
    if data["cause"] == "owner died":
        sub_step["interruptions"] += 1


def _sub_step_reset(state: State, event: Event, data: dict[str, Any]) -> None:
    for key in data["sub_steps"]:
        phase_name, _, name = key.partition("/")
        phase = state["phases"][phase_name]
        old = phase["sub_steps"][name]
        _unsettle(state, phase, old)
        phase["status"] = "in_progress" if phase["started_at"] else "pending"
        phase["completed_at"] = None
        fresh = new_sub_step()
        fresh["generation"] = old["generation"] + 1
        fresh["key_generation"] = old["key_generation"] if data.get("same_key") else fresh["generation"]
        fresh["attempts"] = old["attempts"]
        phase["sub_steps"][name] = fresh
        for writers in state["writers"].values():
            writers.pop(key, None)
    _write(state, data, None)


def _sub_step_inherited(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _settle(state, data, event, data["status"])
    sub_step["generation"] = sub_step["key_generation"] = data["generation"]
    sub_step["attempts"] = data["attempts"]
    sub_step["result"] = data.get("result")
    sub_step["error"] = data.get("error")
    sub_step["reason"] = data.get("reason")
    sub_step["idempotency_key"] = data.get("idempotency_key")
    sub_step["started_at"] = data.get("started_at")
    sub_step["completed_at"] = data.get("completed_at")
    for name in data.get("context_written", []):
        state["writers"].setdefault(name, {})[f"{data['phase']}/{data['sub_step']}"] = event.version


def _sub_step_expanded(state: State, event: Event, data: dict[str, Any]) -> None:
    _, sub_step = _sub_step(state, data)
    sub_step["items"] = {**(sub_step["items"] or {}), **{item["key"]: item for item in data["items"]}}


def _compensation(status: str) -> Rule:
    def rule(state: State, event: Event, data: dict[str, Any]) -> None:
        _, sub_step = _sub_step(state, data)
        sub_step["compensation"] = {
            "status": status,
            "attempts": data["attempt"],
            "error": data.get("error"),
            "idempotency_key": data.get("idempotency_key", (sub_step["compensation"] or {}).get("idempotency_key")),
        }
        state["status"] = "compensating"

    return rule


# --- context, input, signals -----------------------------------------------------------------------------------------


def _context_changed(state: State, event: Event, data: dict[str, Any]) -> None:
    writer = f"{data['phase']}/{data['sub_step']}" if "sub_step" in data else OPERATOR
    _write(state, data, (writer, event.version))


def _write(state: State, data: dict[str, Any], by: tuple[str, int] | None) -> None:
    state["context"].update(data.get("set", {}))
    for name in data.get("unset", []):
        state["context"].pop(name, None)
    if by is not None:
        for name in (*data.get("set", {}), *data.get("unset", [])):
            state["writers"].setdefault(name, {})[by[0]] = by[1]


def _input_changed(state: State, event: Event, data: dict[str, Any]) -> None:
    state["input"] = data["input"]


def _signal_received(state: State, event: Event, data: dict[str, Any]) -> None:
    state["signals"].setdefault(data["name"], []).append(
        {"signal_id": data["signal_id"], "payload": data.get("payload"), "version": event.version}
    )


_RULES: dict[str, Rule] = {
    "SubStepInherited": _sub_step_inherited,
    "JobClaimed": _job_claimed,
    "JobReleased": _job_released,
    "JobPauseRequested": _requested("pause"),
    "JobPaused": _job_paused,
    "JobResumed": _job_resumed,
    "JobCancelRequested": _requested("cancel"),
    "JobCancelled": _job_cancelled,
    "JobReopened": _job_reopened,
    "JobParked": _job_parked,
    "PlanAdopted": _plan_adopted,
    "JobCompleted": _job_completed,
    "JobFailed": _job_failed,
    "PhaseStarted": _phase_started,
    "PhaseCompleted": _phase_ended("completed"),
    "PhaseFailed": _phase_ended("failed"),
    "SubStepStarted": _sub_step_started,
    "SubStepWaiting": _sub_step_waiting,
    "SubStepProgressed": _sub_step_progressed,
    "SubStepLogged": _unseen,
    "SubStepCheckpointed": _sub_step_checkpointed,
    "SubStepCompleted": _sub_step_completed,
    "SubStepFailed": _sub_step_failed,
    "SubStepRetryScheduled": _sub_step_retry_scheduled,
    "SubStepSkipped": _sub_step_skipped,
    "SubStepInterrupted": _sub_step_interrupted,
    "SubStepReset": _sub_step_reset,
    "LateOutcome": _unseen,
    "SubStepExpanded": _sub_step_expanded,
    "ContextChanged": _context_changed,
    "InputChanged": _input_changed,
    "SignalReceived": _signal_received,
    "CompensationStarted": _compensation("in_progress"),
    "CompensationCompleted": _compensation("completed"),
    "CompensationFailed": _compensation("failed"),
}

_WIDE = frozenset({"JobResumed", "SubStepReset", "SubStepInherited", "PlanAdopted", "SignalReceived"})
"""Events whose rules touch more than one sub-step or the context: evolve copies the whole state for them."""


def as_state(stored: dict[str, Any]) -> State:
    """A stored state, as read from the table `snapshots`."""
    return cast(State, stored)
