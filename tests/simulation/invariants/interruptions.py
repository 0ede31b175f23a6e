"""Of deaths: what becomes of what was in flight, what runs alone, and why a job parks."""

from __future__ import annotations

from simulation.invariants.terms import SLACK_S, SUSPECT_AFTER, Broken
from simulation.invariants.undoing import deaths_while_undoing
from simulation.reading import Reading, group_of, key_of
from simulation.world import SETTINGS


def an_interruption_leads_to_what_its_policy_says(told: Reading) -> Broken:
    held: set[str] = set()
    for place, event in enumerate(told.log):
        key, kind, after = key_of(event), event.type, told.next_to(place)
        if kind == "SubStepInterrupted" and event.data["cause"] not in ("cancelled", "commit unknown"):
            policy = told.sub_steps[key].on_interrupt
            failed = after is not None and after.type == "SubStepFailed" and key_of(after) == key
            failed = failed and after is not None and after.data["error"]["type"] == "Interrupted"
            if failed != (policy == "fail"):
                yield f"{key} was interrupted at {event.version} and failed: {failed}"
            held |= {key} if policy == "hold" else set()
        elif kind == "JobResumed":
            held.clear()
        elif kind == "SubStepReset":
            held = {each for each in held if group_of(each) not in event.data["sub_steps"]}
        elif told.is_by_hand(event):
            held = {each for each in held if key not in (each, group_of(each))}
        elif kind == "SubStepStarted" and (key in held or told.before[place].deaths[key] >= SETTINGS.interruptions_max):
            yield f"{key} started at {event.version}, held: {key in held}, deaths: {told.before[place].deaths[key]}"


def what_may_kill_its_process_runs_alone(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepStarted"):
        before = told.before[place]
        suspects = [other for other, deaths in before.deaths.items() if deaths >= SUSPECT_AFTER]
        beside = [other for other in suspects if before.status[other] == "in_progress"]
        if key in suspects and beside:
            yield f"{key} started at {event.version} beside {beside}: any of them may be what kills the process"


def a_job_parks_for_a_reason_that_is_one(told: Reading) -> Broken:
    for place, event, key in told.each("JobParked"):
        status, before = told.before[place].status, told.before[place]
        parts = [key, *before.items_of(key)]
        interrupted = [part for part in parts if status[part] == "interrupted"]
        match event.data["reason"]:
            case "held interruption":
                fits = bool(interrupted) and told.sub_steps[key].on_interrupt == "hold"
            case "crash loop" if told.last_before(place, "CompensationStarted") is not None:
                fits = deaths_while_undoing(told, place, key) >= SETTINGS.interruptions_max
            case "crash loop":
                fits = any(before.deaths[part] >= SETTINGS.interruptions_max for part in interrupted)
            case "context conflict":
                completed = [told.last_before(place, "SubStepCompleted", key=part) for part in parts]
                fits = any(event is not None and "context_refused" in event.data for event in completed)
            case "compensation failed":
                failed = told.last_before(place, "CompensationFailed", key=key)
                fits = failed is not None and failed.data.get("retry_at") is None
            case "stuck handler":
                runs_s = [(call.ended_at or 1e9) - call.at for call in told.notes.calls if group_of(call.key) == key]
                fits = max(runs_s, default=0.0) >= SETTINGS.grace_s - SLACK_S
            case _:
                fits = False
        if not fits or "in_progress" in status.values():
            yield f"parked at {event.version} with {event.data}, when the sub-steps were {status}"
