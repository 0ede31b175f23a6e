"""Of compensation: what completed is undone, the last first, one at a time, each once, and the job ends as it would."""

from __future__ import annotations

from collections import Counter

from simulation.invariants.terms import ERRORS, SLACK_S, STOPS, Broken
from simulation.notes import AttemptId, Call
from simulation.reading import Reading, attempt_of, key_of

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event

_ENDS_AS = {"JobFailed": "failed", "JobCancelled": "cancelled"}
_ENDS = ("CompensationCompleted", "CompensationFailed", "CompensationInterrupted")


def what_completed_is_undone_the_last_first(told: Reading) -> Broken:
    undone: set[str] = set()
    running = ""
    for place, event in enumerate(told.log):
        key = key_of(event)
        if event.type == "CompensationStarted":
            left = _to_undo(told, place, undone)
            if not left or left[0] != key:
                yield f"{key} is undone at {event.version}, when {left} were left, the last to complete first"
            if running or "in_progress" in told.before[place].status.values():
                yield f"{key} is undone at {event.version} beside {running or told.before[place].status}"
            running = key
        elif event.type in _ENDS:
            if running != key:
                yield f"{event.type} of {key} at {event.version}, when {running or 'nothing'} was being undone"
            running = ""
            undone |= {key} if event.type == "CompensationCompleted" else set()
        elif event.type in STOPS and running:
            yield f"{event.type} at {event.version} while {running} was being undone"


def a_job_ends_undone_where_it_says_so_and_only_there(told: Reading) -> Broken:
    undone = {key_of(event) for event in told.log if event.type == "CompensationCompleted"}
    for place, event, _ in told.each("JobFailed", "JobCancelled"):
        left = _to_undo(told, place, undone)
        if _ENDS_AS[event.type] in told.story.compensate_on and left:
            yield f"{event.type} at {event.version}, and {left} are not undone"
    first = next((event for _, event, _ in told.each("CompensationStarted")), None)
    if first is None:
        return
    by_failure = told.log[first.version - 2].type == "PhaseFailed" and "failed" in told.story.compensate_on
    by_request = "cancelled" in told.story.compensate_on and told.was_asked_to_cancel(first.version - 1)
    if not (by_failure or by_request):
        yield f"what was done is undone from {first.version} on, and the workflow does not ask for that"


def nothing_else_goes_on_once_a_job_is_being_undone(told: Reading) -> Broken:
    begun = False
    for event in told.log:
        begun |= event.type == "CompensationStarted"
        if begun and event.type.startswith(("SubStep", "Phase", "ContextChanged", "JobCompleted")):
            yield f"{event.type} at {event.version}, when the job was being undone"


def a_compensation_is_called_once_for_each_start_and_never_after_it_is_done(told: Reading) -> Broken:
    started = {attempt_of(event): event for _, event, _ in told.each("CompensationStarted")}
    seen: Counter[AttemptId] = Counter(call.id for call in told.notes.undone)
    done = Counter(key for _, _, key in told.each("CompensationCompleted"))
    if any(count > 1 for count in (*seen.values(), *done.values())):
        yield f"compensations were called {seen} and completed {done}"
    for call in told.notes.undone:
        start = started.get(call.id)
        if start is None or start.version > call.version:
            yield f"{call.key} was undone at version {call.version}, started at {start and start.version}"
        elif start.data["idempotency_key"] != call.idempotency_key:
            yield f"{call.key} was undone under another idempotency key"
        if start is not None and call.results["own"] != told.result_of(call.key, start.version - 1):
            yield f"to undo {call.key} its handler was given {call.results['own']}"


def a_compensation_ends_as_its_handler_did(told: Reading) -> Broken:
    calls = {call.id: call for call in told.notes.undone}
    for _, event, key in told.each("CompensationCompleted", "CompensationFailed"):
        call = calls.get(attempt_of(event))
        if event.type == "CompensationCompleted":
            fits = call is not None and (call.outcome == "skip" or (call.outcome == "return" and not _wrote(call)))
        else:
            fits = call is not None and _failed_so(told, event, call)
        if not fits:
            yield f"{event.type} of {key} at {event.version}, and its handler did {call and call.outcome}"


def _failed_so(told: Reading, event: Event, call: Call) -> bool:
    kind, undo = event.data["error"]["type"], told.sub_steps[call.key].undo
    match kind:
        case "HandlerTimeout":
            limit_s = (undo and undo.timeout_s) or 5.0
            return (call.ended_at or 1e9) >= call.at + limit_s - SLACK_S
        case "ContextReadOnly":
            return call.outcome in ("return", "unrecordable", "refused") and _wrote(call)
        case _:
            return ERRORS.get(call.outcome or "") == (kind, event.data["error"]["retryable"])


def a_compensation_is_tried_as_often_and_as_late_as_said(told: Reading) -> Broken:
    failures: Counter[str] = Counter()
    due: dict[str, str] = {}
    for event in told.log:
        key, undo = key_of(event), told.sub_steps[key_of(event)].undo if event.type.startswith("Compensation") else None
        if event.type == "JobResumed":
            failures.clear()
            due.clear()
        elif event.type == "CompensationStarted" and due.get(key, "") > event.recorded_at:
            yield f"{key} is undone again at {event.version}, before {due[key]}"
        elif event.type == "CompensationFailed" and undo is not None:
            failures[key] += 1
            retry_at = event.data.get("retry_at")
            if (retry_at is not None) != (event.data["error"]["retryable"] and failures[key] < undo.attempts):
                yield f"undoing {key} failed {failures[key]} times of {undo.attempts}, and is due at {retry_at}"
            if retry_at is not None:
                due[key] = retry_at
                wait_s = min(undo.wait_s * 2 ** (failures[key] - 1), 9.0)
                if abs(seconds_between(event.recorded_at, retry_at) - wait_s) > SLACK_S:
                    yield f"undoing {key} waits until {retry_at} after {event.version} (expected {wait_s:g} s)"


def deaths_while_undoing(told: Reading, place: int, key: str) -> int:
    """How often the owner died before that place while the sub-step was undone, since a person had the job."""
    deaths = 0
    for event in told.log[:place]:
        if event.type == "JobResumed":
            deaths = 0
        elif event.type == "CompensationInterrupted" and event.data["cause"] == "owner died" and key_of(event) == key:
            deaths += 1
    return deaths


def _to_undo(told: Reading, place: int, undone: set[str]) -> list[str]:
    """What is left to be undone before the event at that place, the last to complete first."""
    before = told.before[place].status
    left = [
        key for key, step in told.sub_steps.items() if step.undo and before[key] == "completed" and key not in undone
    ]
    return sorted(left, key=lambda key: _completed_at(told, place, key), reverse=True)


def _completed_at(told: Reading, place: int, key: str) -> int:
    completed = told.last_before(place, "SubStepCompleted", key=key)
    assert completed is not None, key
    return completed.version


def _wrote(call: Call) -> bool:
    return call.final != call.context
