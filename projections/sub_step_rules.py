"""How events of phases and sub-steps change the state. Each rule changes an owned state in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from steplog.eventstore.clock import later
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.projections import fan_out, undoing
from steplog.projections.context_rules import write_context, writer_of
from steplog.projections.plan import key_of_place, place_of
from steplog.projections.state import SETTLED, PhaseState, State, SubStepState, SubStepStatus, Wait, new_sub_step

Rule = Callable[[State, Event, dict[str, Any]], None]

ENGINE = "engine"
"""Who does what nobody did by hand."""

LAST_ERROR_CHARS_MAX = 500


def status_changes(state: State, phase_name: str, name: str, status: SubStepStatus) -> SubStepState:
    """Give a sub-step another status and keep every index that depends on it."""
    phase = state["phases"][phase_name]
    sub_step = phase["sub_steps"][name]
    before = sub_step["status"]
    settled = status in SETTLED
    if settled != (before in SETTLED):
        step = 1 if settled else -1
        phase["unsettled"] -= step
        state["done"] += step
        for dependent in state["dependents"].get(f"{phase_name}/{name}", ()):
            _count_edge(state, dependent, -step)
    sub_step["status"] = status
    if before in _INDEX_OF:
        _index(phase, before).pop(name, None)
    if status in _INDEX_OF and (status != "pending" or name not in phase["open_edges"]):
        _index(phase, status)[name] = True
    return sub_step


def _count_edge(state: State, dependent: str, step: int) -> None:
    phase_name, _, name = dependent.partition("/")
    phase = state["phases"][phase_name]
    edges = phase["open_edges"].get(name, 0) + step
    if edges:
        phase["open_edges"][name] = edges
        phase["ready"].pop(name, None)
    else:
        del phase["open_edges"][name]
        if phase["sub_steps"][name]["status"] == "pending":
            phase["ready"][name] = True


_INDEX_OF: dict[str, Literal["ready", "in_progress", "suspended", "failed"]] = {
    "pending": "ready",
    "in_progress": "in_progress",
    "waiting": "suspended",
    "retrying": "suspended",
    "interrupted": "suspended",
    "failed": "failed",
}
"""By status, which of the phase's sets the sub-step is in; a pending one only once no edge is open."""


def _index(phase: PhaseState, status: SubStepStatus) -> dict[str, bool]:
    return phase[_INDEX_OF[status]]


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


def _group(state: State, data: dict[str, Any]) -> SubStepState:
    return state["phases"][data["phase"]]["sub_steps"][data["sub_step"]]


def _of(state: State, data: dict[str, Any]) -> SubStepState:
    """The sub-step, or the item of it, owned."""
    return fan_out.begin(_group(state, data), data["item"]) if "item" in data else _group(state, data)


def _moved(state: State, data: dict[str, Any], status: SubStepStatus) -> SubStepState:
    if "item" in data:
        return fan_out.move(_group(state, data), data["item"], status)
    return status_changes(state, data["phase"], data["sub_step"], status)


def _of_items_too(rule: Rule) -> Rule:
    """A rule by which a sub-step settles, or an item does: that is then put away."""

    def settle(state: State, event: Event, data: dict[str, Any]) -> None:
        rule(state, event, data)
        if "item" in data:
            fan_out.put_away(_group(state, data), data["item"])
        else:
            fan_out.stop(_group(state, data))

    return settle


def _settled(state: State, event: Event, data: dict[str, Any], status: Any) -> SubStepState:
    sub_step = _moved(state, data, status)
    sub_step["completed_at"] = event.recorded_at
    sub_step["completed_version"] = event.version if status == "completed" else None
    sub_step["retry_at"] = None
    sub_step["wait"] = None
    wake(state, event)
    return sub_step


def _started(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _moved(state, data, "in_progress")
    if sub_step["attempts"] + 1 != data["attempt"]:
        raise DamagedLog(event.job_id, event.version, f"attempt {data['attempt']} is not the next one")
    sub_step["attempts"] = data["attempt"]
    sub_step["when"] = data.get("when", sub_step["when"])
    sub_step["started_at"] = sub_step["started_at"] or event.recorded_at
    sub_step["started_version"] = event.version
    sub_step["idempotency_key"] = data["idempotency_key"]
    sub_step["retry_at"] = None
    sub_step["wait"] = None
    sub_step["reason"] = None
    if state["deadlines"] and sub_step["deadline_at"] is None and "item" not in data:
        _begin_to_count(state, event, data, sub_step)


def _begin_to_count(state: State, event: Event, data: dict[str, Any], sub_step: SubStepState) -> None:
    """From the first start on, a sub-step with a deadline has so much time for all its attempts."""
    give_time(state, event, f"{data['phase']}/{data['sub_step']}", sub_step)


def give_time(state: State, event: Event, key: str, sub_step: SubStepState) -> None:
    """If it has a deadline, that counts from the event on."""
    seconds = state["deadlines"].get(key)
    sub_step["deadline_at"] = None if seconds is None else later(event.recorded_at, seconds)


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


@_of_items_too
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
        state["refused"][place_of(data["phase"], data["sub_step"], data.get("item"))] = data["context_refused"]


def _take_signal(state: State, wait: Wait) -> None:
    """Where there is one, the oldest is what ended the wait: while there is, time does not. Another takes the next."""
    name = wait["signal"]
    if name in state["signals"]:
        left = state["signals"][name][1:]
        state["signals"] = {**state["signals"], name: left}
        if not left:
            del state["signals"][name]


@_of_items_too
def _failed(state: State, event: Event, data: dict[str, Any]) -> None:
    if (wait := _of(state, data)["wait"]) and data.get("by", ENGINE) == ENGINE:
        _take_signal(state, wait)
    sub_step = _settled(state, event, data, "failed")
    sub_step["error"] = data["error"]
    sub_step["seconds"] = data["seconds"]
    sub_step["failures"] += 1
    what = f"{data['sub_step']}[{data['item']}]" if "item" in data else data["sub_step"]
    error = f"{what}: {data['error'].get('type')}: {data['error'].get('message')}"
    state["last_error"] = error[:LAST_ERROR_CHARS_MAX]


def _retry_scheduled(state: State, event: Event, data: dict[str, Any]) -> None:
    if "item" not in data and fan_out.is_expanded(_group(state, data)):
        _group_again(state, event, data)
        return
    sub_step = _moved(state, data, "retrying")
    sub_step["completed_at"] = None
    sub_step["retry_at"] = data["retry_at"]
    if data.get("by", ENGINE) != ENGINE:
        sub_step["failures"] = sub_step["interruptions"] = 0
        sub_step["reason"] = None
        sub_step["deadline_at"] = None
        wake(state, event)


def _group_again(state: State, event: Event, data: dict[str, Any]) -> None:
    """A person lets the items that failed run again."""
    sub_step = _moved(state, data, "in_progress")
    sub_step["completed_at"] = None
    sub_step["failures"] = 0
    _begin_to_count(state, event, data, sub_step)
    fan_out.try_again(sub_step, data["retry_at"])
    wake(state, event)


@_of_items_too
def _skipped(state: State, event: Event, data: dict[str, Any]) -> None:
    _settled(state, event, data, "skipped")["reason"] = data["reason"]


def _interrupted(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _moved(state, data, "interrupted")
    sub_step["reason"] = data["cause"]
    sub_step["retry_at"] = data.get("retry_at")
    if data["cause"] == "owner died":
        sub_step["interruptions"] += 1


def _reset(state: State, event: Event, data: dict[str, Any]) -> None:
    if "items" in data:
        _reset_items(state, event, data)
        return
    for key in data["sub_steps"]:
        phase_name, _, name = key.partition("/")
        phase = state["phases"][phase_name]
        old = status_changes(state, phase_name, name, "pending")
        fresh = new_sub_step()
        fresh["generation"] = fan_out.latest_generation(old) + 1
        fresh["key_generation"] = old["key_generation"] if data.get("same_key") else fresh["generation"]
        fresh["attempts"] = old["attempts"]
        phase["sub_steps"][name] = fresh
    keys = set(data["sub_steps"])
    _forget_writes(state, lambda place: key_of_place(place) in keys)
    for phase_name in dict.fromkeys(key.partition("/")[0] for key in data["sub_steps"]):
        _open_again(state["phases"][phase_name])
    write_context(state, data, None)
    wake(state, event)


def _forget_writes(state: State, is_reset: Callable[[str], bool]) -> None:
    for place in [place for place in state["refused"] if is_reset(place)]:
        del state["refused"][place]
    for writers in state["writers"].values():
        for place in [place for place in writers if is_reset(place)]:
            del writers[place]


def _reset_items(state: State, event: Event, data: dict[str, Any]) -> None:
    """Single items of one fan-out begin a new life; the group goes on."""
    (key,) = data["sub_steps"]
    phase_name, _, name = key.partition("/")
    sub_step = status_changes(state, phase_name, name, "in_progress")
    sub_step["completed_at"] = None
    give_time(state, event, key, sub_step)
    fan_out.begin_anew(sub_step, data["items"], same_key=data.get("same_key", False))
    items = {place_of(phase_name, name, item) for item in data["items"]}
    _forget_writes(state, items.__contains__)
    _open_again(state["phases"][phase_name])
    wake(state, event)


def _open_again(phase: PhaseState) -> None:
    """A phase of which nothing is left has not begun."""
    begun = phase["unsettled"] < len(phase["sub_steps"]) or phase["in_progress"] or phase["suspended"]
    phase["status"] = "in_progress" if begun else "pending"
    phase["started_at"] = phase["started_at"] if begun else None
    phase["completed_at"] = None


def _inherited(state: State, event: Event, data: dict[str, Any]) -> None:
    if "items" in data:
        fan_out.inherit(_group(state, data), data, event.version)
    if state["origin"]:
        state["origin"]["missing"] -= 1
    if data["status"] == "in_progress":
        _inherited_in_part(state, event, data)
        return
    sub_step = _settled(state, event, data, data["status"])
    sub_step["generation"] = sub_step["key_generation"] = data["generation"]
    sub_step["attempts"] = data["attempts"]
    sub_step["result"] = data.get("result")
    sub_step["error"] = data.get("error")
    sub_step["reason"] = data.get("reason")
    sub_step["idempotency_key"] = data.get("idempotency_key")
    sub_step["started_at"] = data.get("started_at")
    sub_step["completed_at"] = data.get("completed_at")
    write_context(state, {"set": data.get("context_written", {})}, (writer_of(data), event.version))


def _inherited_in_part(state: State, event: Event, data: dict[str, Any]) -> None:
    """A fan-out that had not settled, or a part of its items."""
    sub_step = _moved(state, data, "in_progress")
    sub_step["generation"] = sub_step["key_generation"] = data["generation"]
    sub_step["started_at"] = data.get("started_at") or event.recorded_at
    sub_step["started_version"] = event.version
    write_context(state, {"set": data.get("context_written", {})}, (writer_of(data), event.version))


def _expanded(state: State, event: Event, data: dict[str, Any]) -> None:
    sub_step = _moved(state, data, "in_progress")
    fan_out.expand(sub_step, data)
    sub_step["when"] = data.get("when", sub_step["when"])
    sub_step["started_at"] = sub_step["started_at"] or event.recorded_at
    sub_step["started_version"] = event.version
    if state["deadlines"] and sub_step["deadline_at"] is None:
        _begin_to_count(state, event, data, sub_step)


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
    "CompensationStarted": undoing.started,
    "CompensationCompleted": undoing.completed,
    "CompensationFailed": undoing.failed,
    "CompensationInterrupted": undoing.interrupted,
}
