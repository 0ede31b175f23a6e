"""Of failing, retrying and skipping, and of what they mean for the job."""

from __future__ import annotations

from simulation.invariants.terms import SLACK_S, Broken, filled, looked_for_s
from simulation.reading import SETTLED, Reading, group_of, key_of, phase_of
from simulation.story import SubStepStory

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event


def failing_attempts_are_tried_again_as_often_and_as_late_as_said(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepFailed"):
        step, failures, after = told.sub_steps[key], told.before[place].failures[key] + 1, told.next_to(place)
        again = after is not None and after.type == "SubStepRetryScheduled" and key_of(after) == key
        if again and after is not None and told.is_by_hand(after):
            again = False
        wanted = event.data["error"]["retryable"] and failures < step.attempts
        if wanted and not again and _would_be_too_late(told, place, event, failures):
            continue
        if again != wanted:
            yield f"{key} failed {failures} times of {step.attempts} at {event.version} and is tried again: {again}"
        if after is not None and again:
            wait_s = min(step.wait_s * 2 ** (failures - 1), 9.0)
            waits = seconds_between(event.recorded_at, after.data["retry_at"])
            if not wait_s - SLACK_S <= waits <= wait_s * (1 + step.jitter) + SLACK_S:
                yield f"{key} waits {waits:g} s after failure {failures} (expected {wait_s:g} s)"


def _would_be_too_late(told: Reading, place: int, event: Event, failures: int) -> bool:
    """Whether the next attempt might have been due behind the sub-step's deadline."""
    step = told.sub_steps[key_of(event)]
    latest: float = told.seconds(event) + min(step.wait_s * 2 ** (failures - 1), 9.0) * (1 + step.jitter)
    return latest >= told.before[place].deadline_of(key_of(event)) - SLACK_S


def a_retry_starts_when_it_is_due(told: Reading) -> Broken:
    story = told.story
    undisturbed = not (story.faults or story.by_hand) and all(phase.parallel is None for phase in story.phases)
    for place, event, key in told.each("SubStepStarted"):
        if told.before[place].status[key] != "retrying":
            continue
        scheduled = told.last_before(place, "SubStepRetryScheduled", key=key)
        assert scheduled is not None
        of_group = told.last_before(place, "SubStepRetryScheduled", key=group_of(key)) or scheduled
        scheduled = max(scheduled, of_group, key=lambda event: event.version)
        late_s = seconds_between(scheduled.data["retry_at"], event.recorded_at)
        if late_s < 0:
            yield f"{key} started {-late_s:g} s before it was due, at {event.version}"
        if late_s > looked_for_s(told) and undisturbed and not any(map(_holds_others_up, told.sub_steps.values())):
            yield f"{key} started {late_s:g} s after it was due, at {event.version}"


def _holds_others_up(step: SubStepStory) -> bool:
    return bool(step.timeout_s or step.deadline_s or step.transactional or step.fan_out)


def a_critical_failure_starts_nothing_new_and_waits_for_what_runs(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepStarted"):
        before = told.before[place].status
        failed = [other for other in told.critical_of(phase_of(key)) if before[other] == "failed"]
        if failed and before[key] == "pending":
            yield f"{key} started at {event.version} although {failed} had failed"
    for place, event, key in told.each("JobFailed"):
        if event.data["error"]["message"].startswith("the job did not end"):
            continue
        if told.before[place].status[key] != "failed" or told.sub_steps[key].optional:
            yield f"JobFailed names {key}"
        if not told.before[place].failed_phase:
            yield f"JobFailed at {event.version} without PhaseFailed"


def a_completed_job_has_settled_everything(told: Reading) -> Broken:
    for place, event, _ in told.each("JobCompleted"):
        status = {key: told.before[place].status[key] for key in told.sub_steps}
        failed = [key for key, of in status.items() if of == "failed"]
        if not set(status.values()) <= SETTLED or any(not told.sub_steps[key].optional for key in failed):
            yield f"completed with {status}"
        if len(event.data["warnings"]) != len(failed):
            yield f"completed with warnings {event.data['warnings']}, and {failed} failed"


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
            asked = told.asked_for(event)
            if not any(each.answer is False and each.context == filled(told, place) for each in asked):
                yield f"{key} was skipped by its condition at {event.version}, which said {asked[-1:]}"


def a_condition_has_said_yes_to_what_started(told: Reading) -> Broken:
    for _, event, key in told.each("SubStepStarted", "SubStepWaiting", "SubStepExpanded"):
        if told.sub_steps[key].when is None:
            continue
        said = [asked.answer for asked in told.notes.asked if asked.key == key and asked.version < event.version]
        if True not in said:
            yield f"{key} started at {event.version}, and its condition said {said}"
