"""How events of the job itself, its context, input and signals change the state, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from steplog.eventstore.clock import later
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.projections import fan_out, undoing
from steplog.projections.context_rules import OPERATOR, write_context, writer_of
from steplog.projections.outset import Outset
from steplog.projections.plan import Plan
from steplog.projections.state import State
from steplog.projections.sub_step_rules import give_time, status_changes, wake

Rule = Callable[[State, Event, dict[str, Any]], None]

WAITS = "waits"
"""The reason of a JobReleased where all that is left to do waits for a time or a signal."""


def begin(event: Event, outset: Outset | None = None) -> State:
    """The state after a log's first event. Raises DamagedLog where that is none.

    `outset` is that of the event's plan, where it is known: the state then shares it and must not be changed in place.
    """
    if event.type not in ("JobCreated", "JobForked") or event.version != 1:
        raise DamagedLog(event.job_id, event.version, f"a log begins with JobCreated or JobForked, not {event.type}")
    data = event.data
    context = dict(data.get("context", {}))
    outset = outset or Outset.of(data["plan"])
    return State(
        job_id=event.job_id,
        version=event.version,
        recorded_at=event.recorded_at,
        created_at=event.recorded_at,
        ended_at=None,
        workflow=data["workflow"],
        workflow_version=data["workflow_version"],
        mode=data.get("mode", "engine"),
        plan=outset.plan,
        input=data.get("input"),
        input_version=0,
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
        requested_by=None,
        context=context,
        refused={},
        writers={name: {OPERATOR: event.version} for name in context},
        signals={},
        erased=False,
        undoing=None,
        last_error=None,
        done=0,
        total=outset.total,
        dependents=outset.dependents,
        deadlines=outset.deadlines,
        deadline_at=_deadline_at(outset.plan, data.get("run_at") or event.recorded_at),
        phases=outset.phases,
    )


def _origin(data: dict[str, Any]) -> dict[str, Any]:
    parent = {"job_id": data["from_job_id"], "version": data["from_version"], "hash": data["parent_hash"]}
    return {**parent, "inherited": data["inherited"], "missing": data["inherited"]}


def _deadline_at(plan: Plan, since: str) -> str | None:
    return later(since, plan["deadline_s"]) if "deadline_s" in plan else None


def _claimed(state: State, event: Event, data: dict[str, Any]) -> None:
    state["status"] = "compensating" if state["undoing"] else "running"
    state["worker_id"] = data["worker_id"]
    state["epoch"] = data["epoch"]
    state["wake_at"] = None


def _released(state: State, event: Event, data: dict[str, Any]) -> None:
    state["wake_at"] = data.get("wake_at")
    state["status"] = "waiting" if state["wake_at"] or data["reason"] == WAITS else "queued"
    state["worker_id"] = None


def _requested(what: Literal["pause", "cancel"]) -> Rule:
    def rule(state: State, event: Event, data: dict[str, Any]) -> None:
        state["requested"] = what
        state["requested_by"] = {"by": data["by"], "reason": data.get("reason")}
        wake(state, event)

    return rule


def _stop(state: State, status: Any, reason: str | None) -> None:
    state["status"] = status
    state["reason"] = reason
    state["worker_id"] = None
    state["requested"] = state["requested_by"] = None


def _paused(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "paused", data.get("reason"))


def _parked(state: State, event: Event, data: dict[str, Any]) -> None:
    detail = data.get("detail")
    _stop(state, "parked", f"{data['reason']}: {detail}" if detail else data["reason"])


def _erased(state: State, event: Event, data: dict[str, Any]) -> None:
    state["erased"] = True


def _failed(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "failed", None)
    state["error"] = {**data["error"], "phase": data["phase"], "sub_step": data["sub_step"]}


def _cancelled(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "cancelled", data.get("reason"))
    state["ended_at"] = event.recorded_at


def _completed(state: State, event: Event, data: dict[str, Any]) -> None:
    _stop(state, "completed", None)
    state["warnings"] = data.get("warnings", [])
    state["ended_at"] = event.recorded_at


def _reopened(state: State, event: Event, data: dict[str, Any]) -> None:
    state["status"] = "queued"
    state["reason"] = None
    state["error"] = None
    state["warnings"] = []
    state["requested"] = state["requested_by"] = None
    state["ended_at"] = None
    if state["epoch"]:
        state["wake_at"] = None
    state["deadline_at"] = _deadline_at(state["plan"], event.recorded_at)


def _resumed(state: State, event: Event, data: dict[str, Any]) -> None:
    """What stopped the job gets another chance: failures that count a new budget, interruptions a new count, and
    deadlines begin anew: a person has had the job meanwhile.
    """
    _reopened(state, event, data)
    if state["undoing"]:
        undoing.resumed(state)
        return
    state["refused"] = {}
    for plan in state["plan"]["phases"]:
        phase = state["phases"][plan["name"]]
        for name in phase["suspended"]:
            phase["sub_steps"][name]["interruptions"] = 0
            phase["sub_steps"][name]["reason"] = None
            give_time(state, event, f"{plan['name']}/{name}", phase["sub_steps"][name])
        for name in phase["in_progress"]:
            fan_out.count_anew(phase["sub_steps"][name])
            give_time(state, event, f"{plan['name']}/{name}", phase["sub_steps"][name])
        if phase["status"] == "failed":
            phase["status"] = "in_progress"
            phase["completed_at"] = None
            for step in plan["sub_steps"]:
                if step["name"] in phase["failed"] and not step["optional"]:
                    _try_again(state, event, plan["name"], step["name"])


def _try_again(state: State, event: Event, phase: str, name: str) -> None:
    """A sub-step is pending again; a fan-out goes on with what it has not done."""
    expanded = fan_out.is_expanded(state["phases"][phase]["sub_steps"][name])
    sub_step = status_changes(state, phase, name, "in_progress" if expanded else "pending")
    sub_step["failures"] = sub_step["interruptions"] = 0
    sub_step["completed_at"] = None
    sub_step["deadline_at"] = None
    if expanded:
        fan_out.try_again(sub_step)
        give_time(state, event, f"{phase}/{name}", sub_step)


def _plan_adopted(state: State, event: Event, data: dict[str, Any]) -> None:
    before, outset = state["phases"], Outset.of(data["plan"])
    state["plan"] = outset.plan
    state["workflow_version"] = data["workflow_version"]
    state["dependents"] = outset.dependents
    state["deadlines"] = outset.deadlines
    state["phases"] = outset.phases
    state["total"] = outset.total
    state["done"] = 0
    for name, phase in state["phases"].items():
        old = before.get(name)
        if old is None:
            continue
        phase["status"] = old["status"]
        phase["started_at"] = old["started_at"]
        phase["completed_at"] = old["completed_at"]
        for step in phase["sub_steps"].keys() & old["sub_steps"].keys():
            kept = old["sub_steps"][step]
            status_changes(state, name, step, kept["status"])
            phase["sub_steps"][step] = kept
        if phase["status"] == "completed" and phase["unsettled"]:
            phase["status"] = "in_progress"
            phase["completed_at"] = None


def _context_changed(state: State, event: Event, data: dict[str, Any]) -> None:
    writer = writer_of(data)
    write_context(state, data, (writer, event.version))
    if writer == OPERATOR:
        _decide_conflicts(state, {*data.get("set", {}), *data.get("unset", [])})


def _decide_conflicts(state: State, fields: set[str]) -> None:
    """A person's value is the answer to whatever was refused of those fields."""
    left = {
        key: {name: value for name, value in refused.items() if name not in fields}
        for key, refused in state["refused"].items()
    }
    state["refused"] = {key: refused for key, refused in left.items() if refused}


def _input_changed(state: State, event: Event, data: dict[str, Any]) -> None:
    state["input"] = data.get("input")
    state["input_version"] = event.version


def _signal_received(state: State, event: Event, data: dict[str, Any]) -> None:
    state["signals"].setdefault(data["name"], []).append(
        {"signal_id": data["signal_id"], "payload": data.get("payload"), "version": event.version}
    )
    wake(state, event)


JOB_RULES: dict[str, Rule] = {
    "JobClaimed": _claimed,
    "JobReleased": _released,
    "JobPauseRequested": _requested("pause"),
    "JobPaused": _paused,
    "JobResumed": _resumed,
    "JobCancelRequested": _requested("cancel"),
    "JobCancelled": _cancelled,
    "JobReopened": _reopened,
    "JobParked": _parked,
    "SecretsErased": _erased,
    "PlanAdopted": _plan_adopted,
    "JobCompleted": _completed,
    "JobFailed": _failed,
    "ContextChanged": _context_changed,
    "InputChanged": _input_changed,
    "SignalReceived": _signal_received,
}
