"""What a sub-step's edges and its phase's failures say about it: the rules that deciding and the resume point share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from steplog.projections.plan import Key, Shape, key_of, split_key
from steplog.projections.state import SETTLED, State, SubStepState


def in_order(shape: Shape, phase: str, names: Collection[str]) -> Sequence[Key]:
    """Keys of a phase's sub-steps, in the order of declaration."""
    if len(names) > 1:
        names = sorted(names, key=shape.place[phase].__getitem__)
    return [key_of(phase, name) for name in names] if names else ()


def open_edges(state: State, shape: Shape, key: Key) -> list[Key]:
    """Edges that lead to something that has not settled."""
    step = shape.sub_steps[key]
    edges = dict.fromkeys((*step["after"], *step["needs"]))
    return [edge for edge in edges if sub_step_of(state, edge)["status"] not in SETTLED]


def unmet_needs(state: State, shape: Shape, key: Key) -> list[Key]:
    """Edges of data without a default that lead to something skipped or failed: they will never be met."""
    step = shape.sub_steps[key]
    return [
        edge
        for edge in step["needs"]
        if edge not in step["defaults"] and sub_step_of(state, edge)["status"] in ("failed", "skipped")
    ]


def sub_step_of(state: State, key: Key) -> SubStepState:
    """The state of the sub-step with that key."""
    phase, _, name = key.partition("/")
    return state["phases"][phase]["sub_steps"][name]


def blocking_failure(state: State, shape: Shape, phase: str) -> Key | None:
    """The first failed sub-step of the phase that the job cannot go on without."""
    if not state["phases"][phase]["failed"]:
        return None
    failed = in_order(shape, phase, state["phases"][phase]["failed"])
    return next((key for key in failed if not shape.sub_steps[key]["optional"]), None)


def followers(state: State, shape: Shape, key: Key) -> list[Key]:
    """What went on from the sub-step: whatever has begun or settled of those with an edge from it, directly or through
    others, and of the later phases that have begun. In the plan's order.
    """
    dependents: set[Key] = set()
    unseen = [key]
    while unseen:
        found = set(state["dependents"].get(unseen.pop(), ())) - dependents
        dependents |= found
        unseen += found
    phases = list(shape.phases)
    later = phases[phases.index(split_key(key)[0]) + 1 :]
    begun = {phase for phase in later if state["phases"][phase]["started_at"]}
    return [
        other
        for other in shape.sub_steps
        if (other in dependents or split_key(other)[0] in begun) and has_begun(sub_step_of(state, other))
    ]


def has_begun(sub_step: SubStepState) -> bool:
    """Whether anything happened to the sub-step in its generation."""
    return sub_step["status"] != "pending" or sub_step["started_at"] is not None
