"""One decision in the making, and what every part of the decider says of attempts. Pure."""

from __future__ import annotations

from typing import Any

from steplog.engine.facts import AttemptId, ErrorData, Fact, Situation
from steplog.eventstore.events import EventData
from steplog.projections.evolve import Evolution
from steplog.projections.fan_out import item_of
from steplog.projections.plan import Key, Shape
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State, SubStepState


class Draft:
    """The events so far, and the state that they lead to."""

    def __init__(self, state: State, shape: Shape, now: str, situation: Situation) -> None:
        self.evolution = Evolution(state)
        self.state = state
        self.shape = shape
        self.now = now
        self.situation = situation
        self.events: list[EventData] = []
        self.questions: list[Key] = []
        self.unlisted: list[Key] = []
        self.unfinished = False
        self.unrecorded: list[Fact] = []

    def emit(self, data: EventData) -> None:
        """Add an event and go on from the state after it."""
        self.events.append(data)
        self.evolution.foresee(data, self.now)
        self.state = self.evolution.state


def in_progress(state: State) -> list[AttemptId]:
    """Every attempt that was started and has no outcome."""
    if state["undoing"]:
        return _being_undone(state)
    found: list[AttemptId] = []
    for phase, of_phase in state["phases"].items():
        for name in of_phase["in_progress"]:
            sub_step = of_phase["sub_steps"][name]
            items = sub_step["items"]
            if items is None:
                found.append(AttemptId(phase, name, sub_step["generation"], sub_step["attempts"]))
            else:
                found += [_item_in_progress(phase, name, key, items["active"][key]) for key in items["in_progress"]]
    return found


def _being_undone(state: State) -> list[AttemptId]:
    return [
        AttemptId(phase, name, sub_step["generation"], compensation["attempts"], undoing=True)
        for phase, of_phase in state["phases"].items()
        for name, sub_step in of_phase["sub_steps"].items()
        if (compensation := sub_step["compensation"]) and compensation["status"] == "in_progress"
    ]


def _item_in_progress(phase: str, name: str, key: str, item: SubStepState) -> AttemptId:
    return AttemptId(phase, name, item["generation"], item["attempts"], key)


def state_of(state: State, of: AttemptId) -> SubStepState:
    """The sub-step, or the item, that the attempt is of."""
    sub_step = sub_step_of(state, of.key)
    return sub_step if of.item is None else item_of(sub_step, of.item)


def names_of(of: AttemptId) -> dict[str, Any]:
    """What an event of a sub-step says beside its own."""
    return {"phase": of.phase, "sub_step": of.sub_step, "generation": of.generation, "item": of.item}


def attempt_of(of: AttemptId) -> dict[str, Any]:
    """What an event of an attempt says beside its own."""
    return {**names_of(of), "attempt": of.attempt}


def error_of(kind: str, message: str) -> ErrorData:
    """An error that no handler raised; it is not tried again."""
    return {"type": kind, "message": message, "traceback": "", "retryable": False}
