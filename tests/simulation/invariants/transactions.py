"""Of transactional sub-steps: effect and completion are one commit, and nothing else of an attempt is ever there."""

from __future__ import annotations

from collections import Counter

from simulation.invariants.terms import Broken
from simulation.notes import AttemptId
from simulation.reading import Reading, attempt_of, key_of

from steplog.eventstore.events import Event


def a_completion_and_its_effects_are_one_commit(told: Reading) -> Broken:
    committed = {event_id: commit for commit in told.notes.committed for event_id in commit.event_ids}
    parts: Counter[AttemptId] = Counter()
    for _, event, key in told.each("SubStepCheckpointed", "SubStepCompleted"):
        if told.sub_steps[key].fan_out or not told.sub_steps[key].transactional or told.is_by_hand(event):
            continue
        attempt = attempt_of(event)
        commit, call = committed.get(event.event_id), told.call_of(event)
        if commit is None or call is None:
            yield f"{event.type} of {key} at {event.version} is stored without its transaction"
        elif commit.effects != call.effects[parts[attempt]]:
            yield f"{event.type} of {key} at {event.version} has {commit.effects}, it did {call.effects}"
        parts[attempt] += 1


def an_effect_is_there_only_with_what_tells_of_it(told: Reading) -> Broken:
    by_id = {event.event_id: event for event in told.log}
    seen = Counter(effect for commit in told.notes.committed for effect in commit.effects)
    if any(count > 1 for count in seen.values()):
        yield f"effects are there more than once: {seen}"
    for commit in told.notes.committed:
        events = [by_id[event_id] for event_id in commit.event_ids if event_id in by_id]
        if len(events) < len(commit.event_ids) or not any(_ends_a_transaction(told, event) for event in events):
            yield f"the effects {commit.effects} are there, and the log says {[event.type for event in events]}"


def _ends_a_transaction(told: Reading, event: Event) -> bool:
    if event.type == "CompensationCompleted":
        undo = told.sub_steps[key_of(event)].undo
        return undo is not None and undo.transactional
    kinds = ("SubStepCheckpointed", "SubStepCompleted")
    step = told.sub_steps[key_of(event)]
    return event.type in kinds and step.transactional and step.fan_out is None


def what_was_rolled_back_is_not_told_of(told: Reading) -> Broken:
    for _, event, key in told.each("LateOutcome"):
        if told.sub_steps[key].transactional:
            yield f"{key} had no effect, and {event.version} says that it may have had one"
