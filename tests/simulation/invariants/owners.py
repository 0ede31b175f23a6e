"""Of who runs the job: fenced, stopping by themselves, hearing what people ask, leaving nothing undone."""

from __future__ import annotations

from simulation.invariants.terms import SLACK_S, STOPS, STOPS_WITHIN_S, Broken
from simulation.reading import Reading, attempt_of, key_of
from simulation.transacting import TIMEOUT_S
from simulation.world import SETTINGS

from steplog.engine.decider import next_due
from steplog.projections.evolve import fold


def a_former_owner_stops_itself(told: Reading) -> Broken:
    for life in told.notes.lives:
        if life.appends_after_fence:
            yield f"process {life.number} was told that the job is another's and went on appending"
        if life.robbed_at is None:
            continue
        patience_s = STOPS_WITHIN_S + (TIMEOUT_S * len(told.lives) if told.story.stops_writers else 0.0)
        if life.ended_at is None or life.ended_at > life.robbed_at + patience_s:
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
    if (due := next_due(state, state["recorded_at"])) is not None:
        yield f"the job is {state['status']} and something is due at {due}"
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
        elif asked and event.type in ("SubStepStarted", "SubStepExpanded"):
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
            call = told.calls[attempt_of(event)][-1] if "attempt" in event.data else None
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
