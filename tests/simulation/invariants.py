"""What must hold of every story, whatever happened: one function each, in one list. Each yields what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from simulation.notes import Call
from simulation.operators import WHO
from simulation.reading import SETTLED, UNWRITTEN, Reading, key_of, phase_of
from simulation.world import SETTINGS

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.codec import decode, encode
from steplog.eventstore.events import Event
from steplog.projections.evolve import as_state, fold
from steplog.projections.head import head_of
from steplog.projections.state import State

Broken = Iterator[str]
Invariant = Callable[[Reading], Broken]

SLACK_S = 0.01
SUSPECT_AFTER = 2
"""Deaths of its owner after which a sub-step may be their cause."""
STOPS_WITHIN_S = SETTINGS.heartbeat_s + 6.0
"""A former owner hears of it by its heartbeat; an append in flight and a handler's clean-up may take a while more."""
STOPS = frozenset({"JobCompleted", "JobFailed", "JobParked", "JobPaused", "JobCancelled"})
REAL = frozenset({"return", "raise", "fatal", "skip", "unrecordable"})
"""Outcomes of handlers that ended by themselves."""


# --- the log ---------------------------------------------------------------------------------------------------------


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
                for _, event, key in told.each("SubStepCheckpointed")
                if (key, event.data["attempt"]) == (call.key, call.attempt)
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
    stored = as_state(decode(_canonical(kept)))
    whole = fold(told.log[cut:], kept)
    if _canonical(fold(told.log[cut:], stored)) != _canonical(whole):
        yield f"cut at {cut} the log folds to something else"
    if head_of(whole) != told.head.columns:
        yield f"the head says {told.head.columns}"
    last = told.notes.lives[-1].state
    if last is not None and last["version"] == whole["version"] and _canonical(last) != _canonical(whole):
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


# --- owners ----------------------------------------------------------------------------------------------------------


def a_former_owner_stops_itself(told: Reading) -> Broken:
    for life in told.notes.lives:
        if life.appends_after_fence:
            yield f"process {life.number} was told that the job is another's and went on appending"
        if life.robbed_at is None:
            continue
        if life.ended_at is None or life.ended_at > life.robbed_at + STOPS_WITHIN_S:
            yield f"process {life.number} lost the job at {life.robbed_at:g} s and went on until {life.ended_at}"
        for call in told.notes.calls:
            if call.process == life.number and call.at > life.robbed_at + SETTINGS.heartbeat_s + SLACK_S:
                yield f"process {life.number} lost the job at {life.robbed_at:g} s, called {call.key} at {call.at:g} s"


def every_job_ends_or_says_what_it_waits_for(told: Reading) -> Broken:
    yield from told.notes.unexpected
    state = fold(told.log)
    if state["status"] not in ("completed", "failed", "parked", "paused", "cancelled"):
        yield f"the job is left {state['status']}"
    if state["status"] in ("failed", "parked") and not (state["reason"] or state["error"]):
        yield f"the job is {state['status']} without a reason"
    if told.head.worker_id is not None:
        yield "the job keeps its owner"
    if "in_progress" in told.end.status.values() and state["status"] != "cancelled":
        yield "an attempt is left in progress"


def nothing_but_a_person_goes_on_with_a_job_that_stopped(told: Reading) -> Broken:
    stopped = ""
    for event in told.log:
        if event.type in ("JobResumed", "JobReopened"):
            stopped = ""
        if stopped and event.type != "LateOutcome" and not told.is_by_hand(event):
            yield f"{event.type} at {event.version} after {stopped}"
        if event.type in STOPS:
            stopped = event.type


def a_job_that_is_to_stop_starts_nothing_new(told: Reading) -> Broken:
    asked = ""
    for event in told.log:
        if event.type in ("JobPauseRequested", "JobCancelRequested"):
            asked = event.type
        elif event.type in ("JobResumed", "JobReopened", "JobFailed", "JobParked", "JobCompleted"):
            asked = ""
        elif asked and event.type == "SubStepStarted":
            yield f"{key_of(event)} started at {event.version} after {asked}"


def a_person_is_heard_within_a_heartbeat(told: Reading) -> Broken:
    """Where nothing else disturbs the owner: what runs is asked to stop, and what was asked for is done."""
    if not told.is_quiet:
        return
    for place, event in enumerate(told.log):
        running = [key for key, status in told.before[place].status.items() if status == "in_progress"]
        if not told.is_by_hand(event) or told.owner_before(place) is None:
            continue
        heard_s = told.seconds(event) + SETTINGS.heartbeat_s + 0.1
        if key_of(event) in running and event.type != "SubStepRetryScheduled":
            call = told.calls[key_of(event), event.data["attempt"]][-1] if "attempt" in event.data else None
            if call and not told.is_stubborn(call) and (call.ended_at or heard_s) > heard_s:
                yield f"{call.key}#{call.attempt} was settled by hand at {event.version} and ran until {call.ended_at}"
        if event.type == "JobPauseRequested" and not running:
            done = next((later for later in told.log[place:] if later.type in STOPS), None)
            if done is None or told.seconds(done) > heard_s:
                yield f"asked to pause at {event.version}, the owner did nothing but {done and done.type}"


def only_a_death_or_a_hand_over_interrupts(told: Reading) -> Broken:
    claims = told.notes.lives
    died = sum(life.how != "finished" or life.robbed_at is not None for life in claims)
    takeovers = sum(event.data["reason"] == "takeover" for _, event, _ in told.each("JobClaimed"))
    if takeovers > died:
        yield f"{takeovers} take-overs after {died} deaths"
    for place, event, key in told.each("SubStepInterrupted"):
        cause = event.data["cause"]
        among = [other for other in told.log[:place] if other.type not in ("SubStepInterrupted", "SubStepFailed")]
        if cause == "owner died" and among[-1].type != "JobClaimed":
            yield f"{key} was interrupted at {event.version} without a take-over"


# --- attempts --------------------------------------------------------------------------------------------------------


def a_sub_step_goes_through_its_life_in_order(told: Reading) -> Broken:
    attempts: Counter[str] = Counter()
    for place, event in enumerate(told.log):
        key = key_of(event)
        if not key or event.type in ("ContextChanged", "JobParked", "JobFailed"):
            continue
        if event.data["generation"] != told.before[place].generation[key] and event.type != "LateOutcome":
            yield f"{event.type} at {event.version} is of generation {event.data['generation']} of {key}"
        status, attempt = told.before[place].status[key], event.data.get("attempt")
        match event.type:
            case "SubStepRetryScheduled" if told.is_by_hand(event):
                fits = status in ("failed", "retrying", "interrupted") and attempt == attempts[key] + 1
            case _ if told.is_by_hand(event):
                fits = status not in ("completed", "skipped")
            case "SubStepStarted":
                attempts[key] += 1
                fits = status in ("pending", "retrying", "interrupted") and attempt == attempts[key]
            case "SubStepFailed" if status != "in_progress":
                by_condition = status == "pending" and event.data["error"]["type"] == "ZeroDivisionError"
                fits = by_condition or (status == "interrupted" and event.data["error"]["type"] == "Interrupted")
            case "SubStepRetryScheduled":
                before = told.log[place - 1]
                fits = before.type == "SubStepFailed" and key_of(before) == key and attempt == attempts[key] + 1
            case "SubStepSkipped" if event.data["cause"] != "raised":
                fits = status == "pending"
            case "LateOutcome":
                fits = (status, attempt) != ("in_progress", attempts[key])
            case _:
                fits = status == "in_progress" and attempt == attempts[key]
        if not fits:
            yield f"{event.type} of {key}#{attempt} at {event.version}, when it was {status}#{attempts[key]}"


def nothing_starts_before_what_it_needs(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepStarted"):
        step, status = told.sub_steps[key], told.before[place].status
        for edge in (*step.after, *step.defaults):
            if status[edge] not in SETTLED:
                yield f"{key} started at {event.version} and {edge} was {status[edge]}"
        for need in set(step.needs) - set(step.defaults):
            if status[need] != "completed":
                yield f"{key} started at {event.version} and {need}, which it needs, was {status[need]}"


def a_phase_is_a_barrier(told: Reading) -> Broken:
    order = [phase.name for phase in told.story.phases]
    started, ended = set[str](), set[str]()
    for place, event in enumerate(told.log):
        phase, status = event.data.get("phase", ""), told.before[place].status
        of_phase = {key: of for key, of in status.items() if phase_of(key) == phase}
        if event.type in ("PhaseStarted", "SubStepStarted") and not ended.issuperset(order[: order.index(phase)]):
            yield f"{event.type} of {phase} at {event.version} after {sorted(ended)}"
        if event.type == "PhaseStarted":
            started.add(phase)
        elif event.type == "SubStepStarted" and (phase in ended or phase not in started):
            yield f"{key_of(event)} started at {event.version} outside of its phase"
        elif event.type == "PhaseCompleted":
            failed = [key for key in told.critical_of(phase) if status[key] == "failed"]
            if failed or not set(of_phase.values()) <= SETTLED:
                yield f"phase {phase} completed with {of_phase}"
            ended.add(phase)
        elif event.type == "PhaseFailed" and not set(of_phase.values()) <= SETTLED | {"pending"}:
            yield f"phase {phase} failed with {of_phase}"
        elif event.type == "SubStepReset":
            ended -= {phase_of(key) for key in event.data["sub_steps"]}


def no_more_run_at_once_than_the_phase_allows(told: Reading) -> Broken:
    limits = {phase.name: phase.parallel for phase in told.story.phases}
    for place, event, key in told.each("SubStepStarted"):
        phase = phase_of(key)
        running = [of for of, status in told.before[place].status.items() if status == "in_progress"]
        if len(running) >= (limits[phase] or len(told.sub_steps)):
            yield f"{key} started at {event.version} beside {running}"


def started_is_durable_before_the_handler_is_called_once(told: Reading) -> Broken:
    started = {(key, event.data["attempt"]): event for _, event, key in told.each("SubStepStarted")}
    for (key, attempt), calls in told.calls.items():
        start = started.get((key, attempt))
        if len(calls) > 1:
            yield f"{key}#{attempt} was called {len(calls)} times"
        if start is None or start.version > calls[0].version:
            yield f"{key}#{attempt} was called at version {calls[0].version}, started at {start and start.version}"
        elif start.data["idempotency_key"] != calls[0].idempotency_key:
            yield f"{key}#{attempt} was called with another idempotency key"


def a_generation_has_one_idempotency_key_of_its_own(told: Reading) -> Broken:
    keys: dict[tuple[str, int], set[str]] = {}
    for _, event, key in told.each("SubStepStarted"):
        keys.setdefault((key, event.data["generation"]), set()).add(event.data["idempotency_key"])
    if any(len(of) > 1 for of in keys.values()) or len(set().union(*keys.values())) < len(keys):
        yield f"idempotency keys: {keys}"


def a_handler_that_still_runs_is_not_called_again(told: Reading) -> Broken:
    running: dict[tuple[int, str], Call] = {}
    for call in told.notes.calls:
        before = running.get((call.process, call.key))
        if before is not None and (before.ended_at is None or before.ended_at > call.at):
            yield f"{call.key}#{call.attempt} was called while #{before.attempt} ran"
        running[call.process, call.key] = call


# --- outcomes --------------------------------------------------------------------------------------------------------

_ENDS = {
    "raise": ("RuntimeError", True),
    "fatal": ("Fatal", False),
    "unrecordable": ("PayloadRefused", False),
    "over": ("AttemptOver", False),
}


def an_outcome_is_what_the_handler_did(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepCompleted", "SubStepFailed", "SubStepSkipped"):
        call, data = told.call_of(event), event.data
        if told.is_by_hand(event):
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
    if error["type"] == "HandlerTimeout":
        timeout_s = told.sub_steps[key].timeout_s
        return call is not None and timeout_s is not None and (call.ended_at or 1e9) >= call.at + timeout_s - SLACK_S
    if error["type"] == "Interrupted":
        return told.sub_steps[key].on_interrupt == "fail" and told.log[place - 1].type == "SubStepInterrupted"
    if call is None:
        return told.sub_steps[key].when == "raises"
    return (error["type"], error["retryable"]) == _ENDS.get(call.outcome or "")


def no_outcome_is_lost(told: Reading) -> Broken:
    """What a handler did is in the log, if its process lived and owned the job when it looked for the last time."""
    last_look: dict[int, str] = {}
    by_id = {event.event_id: event for event in told.log}
    for stored in told.notes.stored:
        last_look[stored.process] = by_id[stored.event_ids[-1]].recorded_at
    started = told.log[0].recorded_at
    recorded = {
        (key, event.data["attempt"])
        for _, event, key in told.each("SubStepCompleted", "SubStepFailed", "SubStepSkipped", "LateOutcome")
        if event.data.get("attempt") and not told.is_by_hand(event)
        if event.data.get("error", {}).get("type") not in ("HandlerTimeout", "Interrupted")
    }
    for call in told.notes.calls:
        life = told.lives[call.process]
        if life.how != "finished" or life.robbed_at is not None or call.outcome not in REAL:
            continue
        looked_s = seconds_between(started, last_look[call.process])
        if call.ended_at is not None and call.ended_at < looked_s and (call.key, call.attempt) not in recorded:
            yield f"{call.key}#{call.attempt} ended in {call.outcome} at {call.ended_at:g} s, and nothing tells of it"


def a_late_outcome_is_one(told: Reading) -> Broken:
    for _, event, key in told.each("LateOutcome"):
        call = told.call_of(event)
        timed_out = event.data.get("error", {}).get("type") == "HandlerTimeout"
        if call is None or not (timed_out or call.outcome in REAL | {"over"}):
            yield f"LateOutcome of {key} at {event.version}, and the handler did {call and call.outcome}"


# --- failing ---------------------------------------------------------------------------------------------------------


def failing_attempts_are_tried_again_as_often_and_as_late_as_said(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepFailed"):
        step, failures, after = told.sub_steps[key], told.before[place].failures[key] + 1, told.next_to(place)
        again = after is not None and after.type == "SubStepRetryScheduled" and key_of(after) == key
        if again and after is not None and told.is_by_hand(after):
            again = False
        wanted = event.data["error"]["retryable"] and failures < step.attempts
        if again != wanted:
            yield f"{key} failed {failures} times of {step.attempts} at {event.version} and is tried again: {again}"
        if after is not None and again:
            wait_s = min(step.wait_s * 2 ** (failures - 1), 9.0)
            waits = seconds_between(event.recorded_at, after.data["retry_at"])
            if not wait_s - SLACK_S <= waits <= wait_s * (1 + step.jitter) + SLACK_S:
                yield f"{key} waits {waits:g} s after failure {failures} (expected {wait_s:g} s)"


def a_retry_starts_when_it_is_due(told: Reading) -> Broken:
    story = told.story
    undisturbed = not (story.faults or story.by_hand) and all(phase.parallel is None for phase in story.phases)
    for place, event, key in told.each("SubStepStarted"):
        if told.before[place].status[key] != "retrying":
            continue
        scheduled = told.last_before(place, "SubStepRetryScheduled", key=key)
        assert scheduled is not None
        late_s = seconds_between(scheduled.data["retry_at"], event.recorded_at)
        if late_s < 0:
            yield f"{key} started {-late_s:g} s before it was due, at {event.version}"
        if late_s > 0.1 and undisturbed and not any(step.timeout_s for step in told.sub_steps.values()):
            yield f"{key} started {late_s:g} s after it was due, at {event.version}"


def a_critical_failure_starts_nothing_new_and_waits_for_what_runs(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepStarted"):
        before = told.before[place].status
        failed = [other for other in told.critical_of(phase_of(key)) if before[other] == "failed"]
        if failed and before[key] == "pending":
            yield f"{key} started at {event.version} although {failed} had failed"
    for place, event, key in told.each("JobFailed"):
        if told.before[place].status[key] != "failed" or told.sub_steps[key].optional:
            yield f"JobFailed names {key}"
        if told.log[place - 1].type != "PhaseFailed":
            yield f"JobFailed at {event.version} without PhaseFailed"


def a_completed_job_has_settled_everything(told: Reading) -> Broken:
    for place, event, _ in told.each("JobCompleted"):
        status = told.before[place].status
        failed = [key for key, of in status.items() if of == "failed"]
        if not set(status.values()) <= SETTLED or any(not told.sub_steps[key].optional for key in failed):
            yield f"completed with {status}"
        if len(event.data["warnings"]) != len(failed):
            yield f"completed with warnings {event.data['warnings']}, and {failed} failed"


# --- skipping --------------------------------------------------------------------------------------------------------


def what_is_skipped_has_a_cause(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepSkipped"):
        step, status = told.sub_steps[key], told.before[place].status
        if told.is_by_hand(event):
            continue
        if event.data["cause"] == "unmet need":
            unmet = [need for need in set(step.needs) - set(step.defaults) if status[need] in ("failed", "skipped")]
            if not unmet:
                yield f"{key} was skipped for an unmet need at {event.version}"
        elif event.data["cause"] == "condition":
            asked = [each for each in told.notes.asked if each.key == key and each.version < event.version]
            if not asked or asked[-1].answer is not False or asked[-1].context != _filled(told, place):
                yield f"{key} was skipped by its condition at {event.version}, which said {asked[-1:]}"


def a_condition_has_said_yes_to_what_started(told: Reading) -> Broken:
    for _, event, key in told.each("SubStepStarted"):
        if told.sub_steps[key].when is None:
            continue
        said = [asked.answer for asked in told.notes.asked if asked.key == key and asked.version < event.version]
        if True not in said:
            yield f"{key} started at {event.version}, and its condition said {said}"


# --- interruptions ---------------------------------------------------------------------------------------------------


def an_interruption_leads_to_what_its_policy_says(told: Reading) -> Broken:
    held: set[str] = set()
    for place, event in enumerate(told.log):
        key, kind, after = key_of(event), event.type, told.next_to(place)
        if kind == "SubStepInterrupted" and event.data["cause"] != "cancelled":
            policy = told.sub_steps[key].on_interrupt
            failed = after is not None and after.type == "SubStepFailed" and key_of(after) == key
            failed = failed and after is not None and not told.is_by_hand(after)
            if failed != (policy == "fail"):
                yield f"{key} was interrupted at {event.version} and failed: {failed}"
            held |= {key} if policy == "hold" else set()
        elif kind == "JobResumed":
            held.clear()
        elif kind == "SubStepReset":
            held -= set(event.data["sub_steps"])
        elif told.is_by_hand(event):
            held.discard(key)
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
        status = told.before[place].status
        match event.data["reason"]:
            case "held interruption":
                fits = status[key] == "interrupted" and told.sub_steps[key].on_interrupt == "hold"
            case "crash loop":
                fits = status[key] == "interrupted" and told.before[place].deaths[key] >= SETTINGS.interruptions_max
            case "context conflict":
                completed = told.last_before(place, "SubStepCompleted", key=key)
                fits = completed is not None and "context_refused" in completed.data
            case "stuck handler":
                runs_s = [(call.ended_at or 1e9) - call.at for call in told.notes.calls if call.key == key]
                fits = max(runs_s, default=0.0) >= SETTINGS.grace_s - SLACK_S
            case _:
                fits = False
        if not fits or "in_progress" in status.values():
            yield f"parked at {event.version} with {event.data}, when the sub-steps were {status}"


# --- context, results, checkpoints -----------------------------------------------------------------------------------


def a_handler_sees_the_context_as_of_its_start_and_its_last_checkpoint(told: Reading) -> Broken:
    for call in told.notes.calls:
        place = told.starts.get((call.key, call.attempt))
        if place is None:
            continue
        kept = told.last_before(place, "SubStepCheckpointed", key=call.key)
        if kept is not None and kept.data["generation"] != call.generation:
            kept = None
        draft = kept.data.get("draft", {}).get("set", {}) if kept else {}
        if call.context != {**_filled(told, place), **draft}:
            yield f"{call.key}#{call.attempt} saw {call.context}, not {told.before[place].context} with {draft}"
        if call.cursor != (kept.data["cursor"] if kept else None):
            yield f"{call.key}#{call.attempt} saw the cursor {call.cursor} (kept: {kept and kept.data['cursor']})"


def a_checkpoint_holds_what_the_handler_had_written(told: Reading) -> Broken:
    for call in told.notes.calls:
        place = told.starts.get((call.key, call.attempt))
        stored = [
            event
            for _, event, key in told.each("SubStepCheckpointed")
            if (key, event.data["attempt"]) == (call.key, call.attempt)
        ]
        if place is None:
            continue
        for kept, event in zip(call.checkpoints, stored, strict=False):
            changed = _changed(_filled(told, place), kept.context)
            if (event.data["cursor"], event.data["draft"].get("set", {})) != (kept.cursor, changed):
                yield f"{call.key}#{call.attempt} kept {kept.cursor} with {changed}, the log has {event.data}"


def a_completion_records_every_change_once_and_refuses_what_others_wrote(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepCompleted"):
        call, start = told.call_of(event), told.starts.get((key, event.data["attempt"]))
        if call is None or start is None or told.is_by_hand(event):
            continue
        before = told.log[place - 1]
        own = before.type == "ContextChanged" and key_of(before) == key
        merged = before.data["set"] if own else {}
        refused = event.data.get("context_refused", {})
        if {**merged, **refused} != (changed := _changed(_filled(told, start), call.final)):
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
            open_fields = {(key, field) for key, field in open_fields if key not in event.data["sub_steps"]}
        elif event.type == "ContextChanged" and told.is_by_hand(event):
            open_fields = {(key, field) for key, field in open_fields if field not in event.data["set"]}
        elif open_fields and event.type in ("SubStepStarted", "PhaseCompleted", "JobCompleted"):
            yield f"{event.type} at {event.version} after a value was refused: {sorted(open_fields)}"
        elif "context_refused" in event.data:
            open_fields |= {(key_of(event), field) for field in event.data["context_refused"]}


def a_handler_is_given_the_results_it_needs(told: Reading) -> Broken:
    for call in told.notes.calls:
        place = told.starts.get((call.key, call.attempt))
        for need in told.sub_steps[call.key].needs if place is not None else ():
            completed = told.last_before(place or 0, "SubStepCompleted", key=need)
            there = told.before[place or 0].status[need] == "completed" and completed is not None
            wanted = completed.data["result"] if there and completed else None
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
        keys, before, after = event.data["sub_steps"], told.before[place], told.after(place)
        first = min(order.index(phase_of(key)) for key in keys)
        for key, status in after.status.items():
            later = phase_of(key) in begun and order.index(phase_of(key)) > first
            if status != "pending" and (later or any(told.follows(key, other) for other in keys)):
                yield f"{key} is left {status} by the reset at {event.version}"
        begun &= {phase_of(key) for key, status in after.status.items() if status != "pending"}
        for field in UNWRITTEN:
            version = after.last_writer(field)[1]
            source = told.log[version - 1].data if version else {"set": told.log[0].data["context"]}
            taken_back = before.last_writer(field)[0] in keys
            wanted = source["set"].get(field) if taken_back else before.context.get(field)
            if after.context.get(field) != wanted:
                yield f"the reset at {event.version} leaves {field} at {after.context.get(field)} (expected {wanted})"


def _filled(told: Reading, place: int) -> dict[str, Any]:
    """The context before that place as code sees it."""
    return {**UNWRITTEN, **told.before[place].context}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in after.items() if value != before.get(field)}


def _canonical(state: State) -> bytes:
    return encode(dict(state), bytes_max=1 << 40)


INVARIANTS: tuple[Invariant, ...] = (
    every_job_ends_or_says_what_it_waits_for,
    the_log_has_no_gap_and_no_event_twice,
    what_was_acknowledged_is_stored,
    what_a_person_did_is_there_once,
    the_fold_is_the_same_however_the_log_is_cut,
    nothing_of_a_former_owner_is_stored,
    a_former_owner_stops_itself,
    nothing_but_a_person_goes_on_with_a_job_that_stopped,
    a_job_that_is_to_stop_starts_nothing_new,
    a_person_is_heard_within_a_heartbeat,
    only_a_death_or_a_hand_over_interrupts,
    a_sub_step_goes_through_its_life_in_order,
    nothing_starts_before_what_it_needs,
    a_phase_is_a_barrier,
    no_more_run_at_once_than_the_phase_allows,
    started_is_durable_before_the_handler_is_called_once,
    a_generation_has_one_idempotency_key_of_its_own,
    a_handler_that_still_runs_is_not_called_again,
    an_outcome_is_what_the_handler_did,
    no_outcome_is_lost,
    a_late_outcome_is_one,
    failing_attempts_are_tried_again_as_often_and_as_late_as_said,
    a_retry_starts_when_it_is_due,
    a_critical_failure_starts_nothing_new_and_waits_for_what_runs,
    a_completed_job_has_settled_everything,
    what_is_skipped_has_a_cause,
    a_condition_has_said_yes_to_what_started,
    an_interruption_leads_to_what_its_policy_says,
    what_may_kill_its_process_runs_alone,
    a_job_parks_for_a_reason_that_is_one,
    a_handler_sees_the_context_as_of_its_start_and_its_last_checkpoint,
    a_checkpoint_holds_what_the_handler_had_written,
    a_completion_records_every_change_once_and_refuses_what_others_wrote,
    a_refused_value_stops_the_job_until_a_person_decides,
    a_handler_is_given_the_results_it_needs,
    a_reset_takes_back_all_that_followed_and_what_it_wrote,
)
