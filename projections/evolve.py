"""`evolve` and `fold`: from a job's events to its state. Pure, and total over the catalogue: an event without a rule,
or one that does not fit the state, is reported by job and version and never skipped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

from steplog.eventstore.errors import DamagedLog, JobNotFound, UnknownEvent
from steplog.eventstore.events import Event, EventData
from steplog.projections.job_rules import JOB_RULES, begin
from steplog.projections.state import State
from steplog.projections.sub_step_rules import SUB_STEP_RULES

_RULES = {**JOB_RULES, **SUB_STEP_RULES}

_WIDE = frozenset({"JobResumed", "SubStepReset", "SubStepInherited", "PlanAdopted", "SignalReceived"})
"""Events whose rules touch more than one sub-step, its dependents' phases and the context."""

_EVERYTHING, _CONTEXT = "/everything", "/context"
"""No phase and no sub-step is called so: names of phases have no slash."""


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """The state after `events`, from the beginning or from a state that stood before them and stays as it was.

    Raises DamagedLog or UnknownEvent by job and version, JobNotFound where there is neither event nor state.
    """
    if state is not None:
        evolution = Evolution(state)
        for event in events:
            evolution.apply(event)
        return evolution.state
    left = iter(events)
    first = next(left, None)
    if first is None:
        raise JobNotFound("without events")
    return _apply_all(_apply(None, first), left)


def evolve(state: State | None, event: Event) -> State:
    """The state after one event; the state before it stays as it was, and shares what did not change."""
    if state is None:
        return _apply(None, event)
    evolution = Evolution(state)
    evolution.apply(event)
    return evolution.state


class Evolution:
    """States that follow from one: each part is copied once, when the first event touches it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._owned: set[str] = set()
        """Names of phases and keys of sub-steps already copied, and what is not a part of its own."""

    def apply(self, event: Event) -> None:
        """Go on to the state after the event."""
        self._own(event)
        self.state = _apply(self.state, event)

    def foresee(self, data: EventData, at: str) -> None:
        """Go on to the state after an event not yet written."""
        self.apply(foreseen(data, self.state["job_id"], self.state["version"] + 1, at))

    def _own(self, event: Event) -> None:
        owned = self._owned
        if _EVERYTHING in owned:
            return
        if event.type in _WIDE:
            self.state = copy.deepcopy(self.state, _items_of(self.state))
            owned.add(_EVERYTHING)
            return
        if not owned:
            owned.add("")
            self.state = self.state.copy()
            self.state["phases"] = self.state["phases"].copy()
            self.state["refused"] = self.state["refused"].copy()
        phase = event.data.get("phase")
        if phase in self.state["phases"]:
            self._own_sub_step(phase, event.data.get("sub_step"))
        if event.type == "ContextChanged" and _CONTEXT not in owned:
            owned.add(_CONTEXT)
            self.state["context"] = self.state["context"].copy()
            self.state["writers"] = {name: writers.copy() for name, writers in self.state["writers"].items()}

    def _own_sub_step(self, phase: str, sub_step: str | None) -> None:
        key = f"{phase}/{sub_step}"
        if key in self._owned:
            return
        self._owned.add(key)
        self._own_phase(phase)
        sub_steps = self.state["phases"][phase]["sub_steps"]
        if sub_step in sub_steps:
            sub_steps[sub_step] = sub_steps[sub_step].copy()
        for dependent in self.state["dependents"].get(key, ()):
            self._own_phase(dependent.partition("/")[0])

    def _own_phase(self, name: str) -> None:
        if name in self._owned:
            return
        self._owned.add(name)
        phase = self.state["phases"][name].copy()
        phase["ready"] = phase["ready"].copy()
        phase["in_progress"] = phase["in_progress"].copy()
        phase["suspended"] = phase["suspended"].copy()
        phase["failed"] = phase["failed"].copy()
        phase["open_edges"] = phase["open_edges"].copy()
        phase["sub_steps"] = phase["sub_steps"].copy()
        self.state["phases"][name] = phase


def _items_of(state: State) -> dict[int, Any]:
    """What a deep copy shares with the state: items are never changed in place."""
    sub_steps = (step for phase in state["phases"].values() for step in phase["sub_steps"].values())
    return {id(step["items"]): step["items"] for step in sub_steps if step["items"] is not None}


def foreseen(data: EventData, job_id: str, version: int, at: str) -> Event:
    """An event not yet written, as folds see it; its id and hash, which none looks at, come later."""
    return Event(job_id, version, "", data.type(), data.schema_version, at, data.as_data(), "")


def _apply(state: State | None, event: Event) -> State:
    """Change an owned state in place."""
    try:
        if state is None:
            state = begin(event)
        else:
            if event.version != state["version"] + 1:
                raise DamagedLog(event.job_id, event.version, f"does not follow version {state['version']}")
            rule = _RULES.get(event.type)
            if rule is None:
                raise UnknownEvent(event.job_id, event.version, f"no rule to fold {event.type!r} behind other events")
            rule(state, event, event.data)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise DamagedLog(event.job_id, event.version, f"{event.type} does not fit the state: {error!r}") from error
    state["version"] = event.version
    state["recorded_at"] = event.recorded_at
    return state


def _apply_all(state: State, events: Iterable[Event]) -> State:
    """The same for many: a million events go through here, so it does itself what it need not call for."""
    version, rules = state["version"], _RULES
    for event in events:
        version += 1
        rule = rules.get(event.type)
        if rule is None or event.version != version:
            return _apply_all(_apply(state, event), events)
        data = event.data
        try:
            rule(state, event, data)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise DamagedLog(event.job_id, event.version, f"{event.type} does not fit the state: {error!r}") from error
        state["version"] = version
        state["recorded_at"] = event.recorded_at
    return state


def as_state(stored: dict[str, Any]) -> State:
    """A stored state, as read from the table `snapshots`."""
    return cast(State, stored)
