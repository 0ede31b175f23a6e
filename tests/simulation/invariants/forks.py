"""Of forks: what had settled is copied, what had not or stood in the way is pending, and the context is theirs."""

from __future__ import annotations

from typing import Any

from simulation.invariants.terms import Broken
from simulation.moments import item_key
from simulation.notes import Forked
from simulation.reading import SETTLED, Moment, Reading, group_of

from steplog.projections.evolve import fold
from steplog.projections.fan_out import items_of
from steplog.projections.state import SubStepState


def a_fork_goes_on_from_what_had_settled(told: Reading) -> Broken:
    for forked in told.notes.forked:
        state, past = fold(forked.log), told.at_version(forked.from_version)
        undone = {key for _, event, key in told.each("CompensationStarted") if event.version <= forked.from_version}
        inherited = {key for key in told.sub_steps if key not in undone and _is_inherited(told, key, past)}
        for key in told.sub_steps:
            phase, _, name = key.partition("/")
            sub_step = state["phases"][phase]["sub_steps"][name]
            wanted = "pending"
            if key in inherited:
                goes_on = past.status[key] == "expanded" or _stood_in_the_way(told, key, past)
                wanted = "in_progress" if goes_on else past.status[key]
            if sub_step["status"] != wanted:
                yield f"the fork of {forked.from_version} has {key} {sub_step['status']} (expected {wanted})"
            if key in inherited and key in past.listed:
                yield from _items_differ(key, sub_step, past)
        wanted_context = _context(told, forked, past, inherited)
        if state["context"] != wanted_context:
            yield f"the fork of {forked.from_version} has {state['context']} (expected {wanted_context})"
        if [event.version for event in forked.log] != list(range(1, len(forked.log) + 1)):
            yield "the fork's log has a gap"


def _is_inherited(told: Reading, key: str, past: Moment) -> bool:
    """A fan-out goes on from what its items have done, whatever became of it as a whole."""
    if key in past.listed:
        return True
    return past.status[key] in SETTLED and not _stood_in_the_way(told, key, past)


def _items_differ(key: str, sub_step: SubStepState, past: Moment) -> Broken:
    """What is done stays done, what was skipped is skipped, and everything else is pending."""
    for item in items_of(sub_step):
        before = past.status[item_key(key, item.key)]
        wanted = before if before in ("completed", "skipped") else "pending"
        if item.state["status"] != wanted:
            yield f"a fork has {key}[{item.key}] {item.state['status']} (expected {wanted})"


def _stood_in_the_way(told: Reading, key: str, past: Moment) -> bool:
    return past.status[key] == "failed" and not told.sub_steps[key].optional


def _context(told: Reading, forked: Forked, past: Moment, inherited: set[str]) -> dict[str, Any]:
    """The last value of each field that a person or something inherited gave it."""
    context = {}
    for field in past.writers.keys() | told.log[0].data["context"].keys():
        left = {
            writer: at
            for writer, at in past.writers.get(field, {}).items()
            if not writer or group_of(writer) in inherited
        }
        source = told.log[max(left.values()) - 1] if left else told.log[0]
        values = source.data["set"] if left else source.data["context"]
        if field in values:
            context[field] = values[field]
    return {**context, **forked.values}
