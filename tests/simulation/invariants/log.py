"""Of the log itself: whole, in order, told once, and the same state from wherever it is folded."""

from __future__ import annotations

from simulation.invariants.terms import Broken, canonical
from simulation.operators import WHO
from simulation.reading import Reading, attempt_of

from steplog.eventstore.codec import decode
from steplog.projections.evolve import as_state, fold
from steplog.projections.head import head_of


def the_log_has_no_gap_and_no_event_twice(told: Reading) -> Broken:
    for place, event in enumerate(told.log, 1):
        if event.version != place:
            yield f"version {event.version} stands at {place}"
    if len({event.event_id for event in told.log}) != len(told.log):
        yield "an event is stored twice"
    if any(after.recorded_at < before.recorded_at for before, after in zip(told.log, told.log[1:], strict=False)):
        yield "time goes back"


def what_was_acknowledged_is_stored(told: Reading) -> Broken:
    stored = {event.event_id for event in told.log}
    for event_ids in told.notes.acknowledged:
        if not stored.issuperset(event_ids):
            yield "an append was acknowledged that is not in the log"
    for call in told.notes.calls:
        for kept in call.checkpoints:
            if not any(
                event.version <= kept.version and event.data["cursor"] == kept.cursor
                for _, event, _ in told.each("SubStepCheckpointed")
                if attempt_of(event) == call.id
            ):
                yield f"{call.key}#{call.attempt} was told that checkpoint {kept.cursor} is durable"


def what_a_person_did_is_there_once(told: Reading) -> Broken:
    found = [event for event in told.log if told.is_by_hand(event)]
    if [event.event_id for event in found] != told.notes.by_hand:
        yield f"a person appended {len(told.notes.by_hand)} events, the log has {[event.version for event in found]}"
    if any(event.data["by"] != WHO for event in found):
        yield "an event by hand does not say whose"


def the_fold_is_the_same_however_the_log_is_cut(told: Reading) -> Broken:
    cut = 1 + told.story.luck % len(told.log)
    kept = fold(told.log[:cut])
    stored = as_state(decode(canonical(kept)))
    whole = fold(told.log[cut:], kept)
    if canonical(fold(told.log[cut:], stored)) != canonical(whole):
        yield f"cut at {cut} the log folds to something else"
    if head_of(whole) != told.head.columns:
        yield f"the head says {told.head.columns}"
    last = told.notes.lives[-1].state
    if last is not None and last["version"] == whole["version"] and canonical(last) != canonical(whole):
        yield "what the runner foresaw is not what the log folds to"
    if whole["context"] != told.end.context:
        yield f"the context is {whole['context']} (the log says {told.end.context})"


def nothing_of_a_former_owner_is_stored(told: Reading) -> Broken:
    place_of = {event.event_id: place for place, event in enumerate(told.log)}
    for stored in told.notes.stored:
        place = place_of.get(stored.event_ids[0])
        claimed = told.last_before(place, "JobClaimed") if place is not None else None
        if claimed is None or claimed.data["epoch"] != stored.epoch:
            yield f"process {stored.process} of epoch {stored.epoch} appended after {claimed and claimed.data['epoch']}"
