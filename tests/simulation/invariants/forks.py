"""Of forks: what had settled is copied, what had not or stood in the way is pending, and the context is theirs."""

from __future__ import annotations

from typing import Any

from simulation.invariants.terms import Broken
from simulation.notes import Forked
from simulation.reading import SETTLED, Moment, Reading

from steplog.projections.evolve import fold


def a_fork_goes_on_from_what_had_settled(told: Reading) -> Broken:
    for forked in told.notes.forked:
        state, past = fold(forked.log), told.at_version(forked.from_version)
        settled = [key for key, status in past.status.items() if status in SETTLED]
        inherited = {key for key in settled if not _stood_in_the_way(told, key, past)}
        for key in told.sub_steps:
            phase, _, name = key.partition("/")
            status = state["phases"][phase]["sub_steps"][name]["status"]
            wanted = past.status[key] if key in inherited else "pending"
            if status != wanted:
                yield f"the fork of {forked.from_version} has {key} {status} (expected {wanted})"
        wanted_context = _context(told, forked, past, inherited)
        if state["context"] != wanted_context:
            yield f"the fork of {forked.from_version} has {state['context']} (expected {wanted_context})"
        if [event.version for event in forked.log] != list(range(1, len(forked.log) + 1)):
            yield "the fork's log has a gap"


def _stood_in_the_way(told: Reading, key: str, past: Moment) -> bool:
    return past.status[key] == "failed" and not told.sub_steps[key].optional


def _context(told: Reading, forked: Forked, past: Moment, inherited: set[str]) -> dict[str, Any]:
    """The last value of each field that a person or something inherited gave it."""
    context = {}
    for field in past.writers.keys() | told.log[0].data["context"].keys():
        left = {writer: at for writer, at in past.writers.get(field, {}).items() if not writer or writer in inherited}
        source = told.log[max(left.values()) - 1] if left else told.log[0]
        values = source.data["set"] if left else source.data["context"]
        if field in values:
            context[field] = values[field]
    return {**context, **forked.values}
