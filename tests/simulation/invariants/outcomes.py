"""Of what handlers did: each outcome is in the log as it was, and none is lost."""

from __future__ import annotations

from simulation.invariants.terms import ERRORS, REAL, SLACK_S, Broken
from simulation.notes import Call
from simulation.reading import Reading, attempt_of, group_of, key_of
from simulation.transacting import TIMEOUT_S
from simulation.world import SETTINGS

from steplog.engine.attempts import ENDING_S_MAX
from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event


def an_outcome_is_what_the_handler_did(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepCompleted", "SubStepFailed", "SubStepSkipped"):
        call, data = told.call_of(event), event.data
        if told.is_by_hand(event) or told.sub_steps[key].wait or told.sub_steps[key].fan_out:
            continue
        if event.type == "SubStepSkipped":
            fits = data["cause"] != "raised" or (call is not None and call.outcome == "skip")
        elif event.type == "SubStepCompleted":
            fits = call is not None and call.outcome == "return" and data["result"] == call.result
            timeout_s = told.sub_steps[key].timeout_s if call and told.lives[call.process].stopped_at is None else None
            if fits and call and timeout_s and (call.ended_at or 0.0) > call.at + timeout_s + SLACK_S:
                yield f"{key} took longer than {timeout_s:g} s and completed"
        else:
            fits = _failed_so(told, place, event, call)
        if not fits:
            yield f"{event.type} of {key} at {event.version} says {data}, the handler did {call and call.outcome}"


def _failed_so(told: Reading, place: int, event: Event, call: Call | None) -> bool:
    error, key = event.data["error"], key_of(event)
    if error["type"] == "DeadlineExceeded":
        return told.seconds(event) >= told.before[place].deadline_of(key) - SLACK_S
    if error["type"] == "HandlerTimeout":
        step = told.sub_steps[key]
        timeout_s = step.timeout_s or (TIMEOUT_S if step.transactional and told.story.stops_writers else None)
        return call is not None and timeout_s is not None and (call.ended_at or 1e9) >= call.at + timeout_s - SLACK_S
    if error["type"] == "Interrupted":
        return told.sub_steps[key].on_interrupt == "fail" and told.log[place - 1].type == "SubStepInterrupted"
    if call is None:
        return told.sub_steps[key].when == "raises"
    return (error["type"], error["retryable"]) == ERRORS.get(call.outcome or "")


def no_outcome_is_lost(told: Reading) -> Broken:
    """What a handler did is in the log, if its process lived and owned the job when it looked for the last time."""
    last_look: dict[int, str] = {}
    by_id = {event.event_id: event for event in told.log}
    for stored in told.notes.stored:
        last_look[stored.process] = by_id[stored.event_ids[-1]].recorded_at
    started = told.log[0].recorded_at
    recorded = {
        attempt_of(event)
        for _, event, _ in told.each("SubStepCompleted", "SubStepFailed", "SubStepSkipped", "LateOutcome")
        if event.data.get("attempt") and not told.is_by_hand(event)
        if event.data.get("error", {}).get("type") not in ("HandlerTimeout", "Interrupted", "DeadlineExceeded")
    }
    for call in told.notes.calls:
        life = told.lives[call.process]
        if life.how != "finished" or life.robbed_at is not None or call.outcome not in REAL:
            continue
        tells_nothing = told.sub_steps[call.key].transactional or call.outcome == "own cancel"  # as of the engine's
        if tells_nothing and _is_settled_otherwise(told, call):
            continue
        if (call.ended_at or 0.0) > _given_up_s(told, call):
            continue
        looked_s = seconds_between(started, last_look[call.process])
        if call.ended_at is not None and call.ended_at < looked_s and call.id not in recorded:
            yield f"{call.key}#{call.attempt} ended in {call.outcome} at {call.ended_at:g} s, and nothing tells of it"


def _given_up_s(told: Reading, call: Call) -> float:
    """When nobody listens any more to a handler that goes on although its job had to stop."""
    place, life = told.starts.get(call.id), told.lives[call.process]
    asked_s = [told.seconds(event) for _, event, _ in told.each("JobCancelRequested") if told.seconds(event) > call.at]
    deadline = told.before[place].job_deadline if place is not None else None
    begins_s = [*asked_s, *([] if deadline is None else [max(deadline, call.at)])]
    ends_s = [at + SETTINGS.grace_s for at in begins_s] + ([] if life.stopped_at is None else [life.stopped_at])
    return min(ends_s, default=1e9) + ENDING_S_MAX


def _is_settled_otherwise(told: Reading, call: Call) -> bool:
    """Whether somebody else than its handler ended the attempt, so that its transaction was rolled back."""
    ends = told.each("SubStepCompleted", "SubStepFailed", "SubStepSkipped", "SubStepInterrupted")
    mine = any(key == call.key and event.data.get("attempt", call.attempt) == call.attempt for _, event, key in ends)
    groups = told.each("SubStepCompleted", "SubStepFailed", "SubStepSkipped")
    return mine or any("[" in call.key and key == group_of(call.key) for _, _, key in groups)


def a_late_outcome_is_one(told: Reading) -> Broken:
    for _, event, key in told.each("LateOutcome"):
        call = told.call_of(event)
        timed_out = event.data.get("error", {}).get("type") == "HandlerTimeout"
        if call is None or not (timed_out or call.outcome in REAL | {"over"}):
            yield f"LateOutcome of {key} at {event.version}, and the handler did {call and call.outcome}"
