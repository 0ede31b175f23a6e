"""Of context, results and checkpoints: what handlers see, and what becomes of what they wrote."""

from __future__ import annotations

from typing import Any

from simulation.invariants.terms import Broken, differing, filled
from simulation.reading import UNWRITTEN, Reading, attempt_of, group_of, key_of, phase_of


def a_handler_sees_the_context_as_of_its_start_and_its_last_checkpoint(told: Reading) -> Broken:
    for call in told.notes.calls:
        place = told.starts.get(call.id)
        if place is None:
            continue
        kept = told.last_before(place, "SubStepCheckpointed", key=call.key)
        if kept is not None and kept.data["generation"] != call.generation:
            kept = None
        draft = kept.data.get("draft", {}).get("set", {}) if kept else {}
        if call.context != {**filled(told, place), **draft}:
            yield f"{call.key}#{call.attempt} saw {call.context}, not {told.before[place].context} with {draft}"
        if call.cursor != (kept.data["cursor"] if kept else None):
            yield f"{call.key}#{call.attempt} saw the cursor {call.cursor} (kept: {kept and kept.data['cursor']})"


def a_checkpoint_holds_what_the_handler_had_written(told: Reading) -> Broken:
    for call in told.notes.calls:
        place = told.starts.get(call.id)
        stored = [event for _, event, _ in told.each("SubStepCheckpointed") if attempt_of(event) == call.id]
        if place is None:
            continue
        for kept, event in zip(call.checkpoints, stored, strict=False):
            changed = differing(filled(told, place), kept.context)
            if (event.data["cursor"], event.data["draft"].get("set", {})) != (kept.cursor, changed):
                yield f"{call.key}#{call.attempt} kept {kept.cursor} with {changed}, the log has {event.data}"


def a_completion_records_every_change_once_and_refuses_what_others_wrote(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepCompleted"):
        call, start = told.call_of(event), told.starts.get(attempt_of(event))
        if call is None or start is None or told.is_by_hand(event):
            continue
        before = told.log[place - 1]
        own = before.type == "ContextChanged" and key_of(before) == key
        merged = before.data["set"] if own else {}
        refused = event.data.get("context_refused", {})
        if {**merged, **refused} != (changed := differing(filled(told, start), call.final)):
            yield f"{key} changed {changed}; recorded are {merged}, refused {refused}"
        at = place - 1 if own else place
        wanted = {field for field, value in changed.items() if not _may_write(told, key, field, value, at, start)}
        if refused.keys() != wanted:
            yield f"{key} was refused {sorted(refused)} (expected {sorted(wanted)}) at {event.version}"
    for place, event, key in told.each("ContextChanged"):
        after = told.log[place + 1] if place + 1 < len(told.log) else None
        if key and (after is None or after.type != "SubStepCompleted" or key_of(after) != key):
            yield f"{key} changed the context at {event.version} without completing"


def _may_write(told: Reading, key: str, field: str, value: Any, at: int, start: int) -> bool:
    writer, version = told.before[at].last_writer(field)
    if field in told.before[at].context and told.before[at].context[field] == value:
        return True
    if not writer:
        return version <= told.log[start].version
    return phase_of(writer) != phase_of(key) or writer == key or told.follows(key, writer)


def a_refused_value_stops_the_job_until_a_person_decides(told: Reading) -> Broken:
    open_fields: set[tuple[str, str]] = set()
    for event in told.log:
        if event.type == "JobResumed":
            open_fields.clear()
        elif event.type == "SubStepReset":
            open_fields = {(key, field) for key, field in open_fields if group_of(key) not in event.data["sub_steps"]}
        elif event.type == "ContextChanged" and told.is_by_hand(event):
            open_fields = {(key, field) for key, field in open_fields if field not in event.data["set"]}
        elif open_fields and event.type in ("SubStepStarted", "SubStepExpanded", "PhaseCompleted", "JobCompleted"):
            yield f"{event.type} at {event.version} after a value was refused: {sorted(open_fields)}"
        elif "context_refused" in event.data:
            open_fields |= {(key_of(event), field) for field in event.data["context_refused"]}


def a_handler_is_given_the_results_it_needs(told: Reading) -> Broken:
    for call in told.notes.calls:
        place = told.starts.get(call.id)
        for need in told.sub_steps[call.key].needs if place is not None else ():
            wanted = told.result_of(need, place or 0)
            if call.results[need.replace("/", "_")] != wanted:
                yield f"{call.key}#{call.attempt} was given {call.results}, and {need} returned {wanted}"


def a_reset_takes_back_all_that_followed_and_what_it_wrote(told: Reading) -> Broken:
    order = [phase.name for phase in told.story.phases]
    begun: set[str] = set()
    for place, event in enumerate(told.log):
        if event.type == "PhaseStarted":
            begun.add(event.data["phase"])
        if event.type != "SubStepReset":
            continue
        if "items" in event.data:  # nothing went on from them, and they have written nothing
            continue
        keys, before, after = event.data["sub_steps"], told.before[place], told.after(place)
        first = min(order.index(phase_of(key)) for key in keys)
        for key, status in after.status.items():
            later = phase_of(key) in begun and order.index(phase_of(key)) > first
            if status != "pending" and (later or any(told.follows(key, other) for other in keys)):
                yield f"{key} is left {status} by the reset at {event.version}"
        begun &= {phase_of(key) for key in told.sub_steps if after.status[key] != "pending"}
        for field in UNWRITTEN:
            version = after.last_writer(field)[1]
            source = told.log[version - 1].data if version else {"set": told.log[0].data["context"]}
            taken_back = group_of(before.last_writer(field)[0]) in keys
            wanted = source["set"].get(field) if taken_back else before.context.get(field)
            if after.context.get(field) != wanted:
                yield f"the reset at {event.version} leaves {field} at {after.context.get(field)} (expected {wanted})"
