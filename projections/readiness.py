"""What a sub-step's edges say about it in a state: the one rule that the decider and the resume point share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steplog.projections.plan import Key, Shape, split_key
from steplog.projections.state import SETTLED, State, SubStepState


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a sub-step's edges are met; `edges` are those that are not, or will never be."""

    verdict: Literal["ready", "waiting", "unmet"]
    edges: tuple[Key, ...] = ()


READY = Readiness("ready")


def readiness(state: State, shape: Shape, key: Key) -> Readiness:
    """`ready` once every edge is met, `unmet` once an edge of data can no longer be, else `waiting`.

    An `after` edge is met when its sub-step has settled, a `needs` edge when it completed, or merely settled if the
    need has a default.
    """
    step = shape.sub_steps[key]
    waiting = [edge for edge in (*step["after"], *step["needs"]) if sub_step_of(state, edge)["status"] not in SETTLED]
    unmet = [
        edge
        for edge in step["needs"]
        if edge not in step["defaults"] and sub_step_of(state, edge)["status"] in ("failed", "skipped")
    ]
    if unmet:
        return Readiness("unmet", tuple(unmet))
    return Readiness("waiting", tuple(dict.fromkeys(waiting))) if waiting else READY


def sub_step_of(state: State, key: Key) -> SubStepState:
    """The state of the sub-step with that key."""
    phase, name = split_key(key)
    return state["phases"][phase]["sub_steps"][name]


def blocking_failure(state: State, shape: Shape, phase: str) -> Key | None:
    """The first failed sub-step of the phase that the job cannot go on without."""
    for key in shape.of_phase[phase]:
        if sub_step_of(state, key)["status"] == "failed" and not shape.sub_steps[key]["optional"]:
            return key
    return None
