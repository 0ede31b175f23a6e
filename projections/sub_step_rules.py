"""How events of phases and sub-steps change the state. Each rule changes an owned state in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steplog.eventstore.clock import later
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.projections.context_rules import write_context
from steplog.projections.state import SETTLED, PhaseState, State, SubStepState, SubStepStatus, Wait, new_sub_step

Rule = Callable[[State, Event, dict[str, Any]], None]

ENGINE = "engine"
"""Who does what nobody did by hand."""

LAST_ERROR_CHARS_MAX = 500


def status_changes(state: State, phase_name: str, name: str, status: SubStepStatus) -> SubStepState:
    """Give a sub-step another status and keep every index that depends on it."""
    phase = state["phases"][phase_name]
    sub_step = phase["sub_steps"][name]
    settled = status in SETTLED
    if settled != (sub_step["status"] in SETTLED):
        step = 1 if settled else -1
        phase["unsettled"] -= step
        state["done"] += step
        for dependent in state["dependents"].get(f"{phase_name}/{name}", ()):
            _count_edge(state, dependent, -step)
    sub_step["status"] = status
    _index(state, phase, phase_name, name)
    return sub_step


def _count_edge(state: State, dependent: str, step: int) -> None:
    phase_name, _, name = dependent.partition("/")
    phase = state["phases"][phase_name]
    edges = phase["open_edges"].get(name, 0) + step
    if edges:
        phase["open_edges"][name] = edges
    else:
        del phase["open_edges"][name]
    _index(state, phase, phase_name, name)


def _index(state: State, phase: PhaseState, phase_name: str, name: str) -> None:
    status = phase["sub_steps"][name]["status"]
    wanted: dict[str, bool] | None = None
    if status == "pending":
        wanted = phase["ready"] if name not in phase["open_edges"] else None
    elif status == "failed":
        wanted = phase["failed"]
    elif status == "in_progress":
        wanted = phase["in_progress"]
    elif status not in SETTLED:
        wanted = phase["suspended"]
    for index in (phase["ready"], phase["in_progress"], phase["suspended"], phase["failed"]):
        if index is not wanted:
            index.pop(name, None)
    if wanted is not None:
        wanted[name] = True


def wake(state: State, event: Event) -> None:
    """Somebody changed what a job without an owner waits for: a worker is to look at it."""
    if state["status"] == "waiting":
        state["wake_at"] = event.recorded_at


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


def _of(state: State, data: dict[str, Any]) -> SubStepState:
    return state["phases"][data["phase"]]["sub_steps"][data["sub_step"]]


def _moved(state: State, data: dict[str, Any], status: SubStepStatus) -> SubStepState:
    return status_changes(state, data["phase"], data["sub_step"], status)


def _settled(state: State, event: Event, data: dict[str, Any], status: Any) -> SubStepState:
    sub_step = _moved(state, data, status)
    sub_step["completed_at"] = event.recorded_at
    sub_step["retry_at"] = None
    sub_step["wait"] = None
    wake(state, event)
    return sub_step


def _started(state: State, event: Event, data: dict[str, Any]) -> None:
    if _of(state, data)["attempts"] + 1 != data["attempt"]:
        raise DamagedLog(event.job_id, event.version, f"attempt {data['attempt']} is not the next one")
    sub_step = _moved(state, data, "in_progress")
    sub_step["attempts"] = data["attempt"]
    sub_step["when"] = data.get("when", sub_step["when"])
    sub_step["started_at"] = sub_step["started_at"] or event.recorded_at
    sub_step["started_version"] = event.version
    sub_step["idempotency_key"] = data["idempotency_key"]
    sub_step["retry_at"] = None
    sub_step["wait"] = None
    sub_step["reason"] = None
    if state["deadlines"] and sub_step["deadline_at"] is None:
        _begin_to_count(state, event, data, sub_step)


def _begin_to_count(state: State, event: Event, data: dict[str, Any], sub_step: SubStepState) -> None:
    """From the first start on, a sub-step with a deadline has so much time for all its attempts."""
    seconds = state["deadlines"].get(f"{data['phase']}/{data['sub_step']}")
    if seconds is not None:
        sub_step["deadline_at"] = later(event.recorded_at, seconds)


def _waiting(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _moved(state, data, "waiting")
    sub_step["started_at"] = sub_step["started_at"] or event.recorded_at
    sub_step["wait"] = Wait(kind=data["kind"], until=data.get("until"), signal=data.get("signal"))


def _progressed(state: State, event: Event, data: dict[str, Any]) -> None:
    progress = {"done": data["done"]}
    if "total" in data:
        progress["total"] = data["total"]
    if "note" in data:
        progress["note"] = data["note"]
    _of(state, data)["progress"] = progress


def _checkpointed(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _of(state, data)
    sub_step["cursor"] = data.get("cursor")
    sub_step["draft"] = data.get("draft")


def _completed(state: State, event: Event, data: dict[str, Any]) -> None:
    if (wait := _of(state, data)["wait"]) and data.get("by", ENGINE) == ENGINE:
        _take_signal(state, wait)
    sub_step = _settled(state, event, data, "completed")
    sub_step["result"] = data.get("result")
    sub_step["seconds"] = data["seconds"]
    sub_step["error"] = None
    sub_step["reason"] = data.get("reason")
    sub_step["cursor"] = sub_step["draft"] = None
    if "context_refused" in data:
        state["refused"][f"{data['phase']}/{data['sub_step']}"] = data["context_refused"]


def _take_signal(state: State, wait: Wait) -> None:
    """Where there is one, the oldest is what ended the wait: while there is, time does not. Another takes the next."""
    name = wait["signal"]
    if name in state["signals"]:
        left = state["signals"][name][1:]
        state["signals"] = {**state["signals"], name: left}
        if not left:
            del state["signals"][name]


def _failed(state: State, event: Event, data: dict[str, Any]) -> None:
    if (wait := _of(state, data)["wait"]) and data.get("by", ENGINE) == ENGINE:
        _take_signal(state, wait)
    sub_step = _settled(state, event, data, "failed")
    sub_step["error"] = data["error"]
    sub_step["seconds"] = data["seconds"]
    sub_step["failures"] += 1
    error = f"{data['sub_step']}: {data['error'].get('type')}: {data['error'].get('message')}"
    state["last_error"] = error[:LAST_ERROR_CHARS_MAX]


def _retry_scheduled(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _moved(state, data, "retrying")
    sub_step["completed_at"] = None
    sub_step["retry_at"] = data["retry_at"]
    if data.get("by", ENGINE) != ENGINE:
        sub_step["failures"] = sub_step["interruptions"] = 0
        sub_step["reason"] = None
        sub_step["deadline_at"] = None
        wake(state, event)


def _skipped(state: State, event: Event, data: dict[str, Any]) -> None:
    _settled(state, event, data, "skipped")["reason"] = data["reason"]


def _interrupted(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _moved(state, data, "interrupted")
    sub_step["reason"] = data["cause"]
    sub_step["retry_at"] = data.get("retry_at")
    if data["cause"] == "owner died":
        sub_step["interruptions"] += 1


def _reset(state: State, event: Event, data: dict[str, Any]) -> None:
    for key in data["sub_steps"]:
        phase_name, _, name = key.partition("/")
        phase = state["phases"][phase_name]
        old = status_changes(state, phase_name, name, "pending")
        fresh = new_sub_step()
        fresh["generation"] = old["generation"] + 1
        fresh["key_generation"] = old["key_generation"] if data.get("same_key") else fresh["generation"]
        fresh["attempts"] = old["attempts"]
        phase["sub_steps"][name] = fresh
        state["refused"].pop(key, None)
        for writers in state["writers"].values():
            writers.pop(key, None)
    for phase_name in dict.fromkeys(key.partition("/")[0] for key in data["sub_steps"]):
        _open_again(state["phases"][phase_name])
    write_context(state, data, None)
    wake(state, event)


def _open_again(phase: PhaseState) -> None:
    """A phase of which nothing is left has not begun."""
    begun = phase["unsettled"] < len(phase["sub_steps"]) or phase["in_progress"] or phase["suspended"]
    phase["status"] = "in_progress" if begun else "pending"
    phase["started_at"] = phase["started_at"] if begun else None
    phase["completed_at"] = None


def _inherited(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _settled(state, event, data, data["status"])
    sub_step["generation"] = sub_step["key_generation"] = data["generation"]
    sub_step["attempts"] = data["attempts"]
    sub_step["result"] = data.get("result")
    sub_step["error"] = data.get("error")
    sub_step["reason"] = data.get("reason")
    sub_step["idempotency_key"] = data.get("idempotency_key")
    sub_step["started_at"] = data.get("started_at")
    sub_step["completed_at"] = data.get("completed_at")
    write_context(
        state, {"set": data.get("context_written", {})}, (f"{data['phase']}/{data['sub_step']}", event.version)
    )
    if state["origin"]:
        state["origin"]["missing"] -= 1


def _expanded(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _of(state, data)
    sub_step["items"] = {**(sub_step["items"] or {}), **{item["key"]: item for item in data["items"]}}


def _compensation(status: str) -> Rule:
    def rule(state: State, event: Event, data: dict[str, Any]) -> None:
        sub_step = _of(state, data)
        sub_step["compensation"] = {
            "status": status,
            "attempts": data["attempt"],
            "error": data.get("error"),
            "idempotency_key": data.get("idempotency_key", (sub_step["compensation"] or {}).get("idempotency_key")),
        }
        state["status"] = "compensating"

    return rule


def _told_elsewhere(state: State, event: Event, data: dict[str, Any]) -> None:
    """A fact that the history shows and nothing else depends on."""


SUB_STEP_RULES: dict[str, Rule] = {
    "PhaseStarted": _phase_started,
    "PhaseCompleted": _phase_ended("completed"),
    "PhaseFailed": _phase_ended("failed"),
    "SubStepStarted": _started,
    "SubStepWaiting": _waiting,
    "SubStepProgressed": _progressed,
    "SubStepLogged": _told_elsewhere,
    "SubStepCheckpointed": _checkpointed,
    "SubStepCompleted": _completed,
    "SubStepFailed": _failed,
    "SubStepRetryScheduled": _retry_scheduled,
    "SubStepSkipped": _skipped,
    "SubStepInterrupted": _interrupted,
    "SubStepReset": _reset,
    "SubStepInherited": _inherited,
    "LateOutcome": _told_elsewhere,
    "SubStepExpanded": _expanded,
    "CompensationStarted": _compensation("in_progress"),
    "CompensationCompleted": _compensation("completed"),
    "CompensationFailed": _compensation("failed"),
}
