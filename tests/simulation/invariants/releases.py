"""Of giving a job back that only waits: not too early, with the right hour, and taken up again when that comes."""

from __future__ import annotations

from collections.abc import Iterator

from simulation.invariants.terms import SLACK_S, Broken
from simulation.reading import SETTLED, Moment, Reading, group_of, phase_of
from simulation.world import POLL_S, SETTINGS

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event


def a_job_is_given_back_only_where_it_waits_for_long(told: Reading) -> Broken:
    for place, event in _given_back(told):
        before, wake_at = told.before[place], event.data.get("wake_at")
        if not told.story.releases:
            yield f"the job was given back at {event.version}, and somebody waited for its end"
        if "in_progress" in before.status.values():
            yield f"the job was given back at {event.version} with {before.status}"
        if wake_at and seconds_between(event.recorded_at, wake_at) <= SETTINGS.release_after_s:
            yield f"the job was given back at {event.version} until {wake_at}: that is soon"
        if ready := [key for key in told.sub_steps if _could_start(told, before, key)]:
            yield f"the job was given back at {event.version}, and {ready} could start"
        if told.was_asked_to_stop(place):
            yield f"the job was given back at {event.version}, and a person had asked it to stop"


def a_job_that_was_given_back_wakes_when_the_first_thing_is_due(told: Reading) -> Broken:
    for place, event in _given_back(told):
        wake_at = event.data.get("wake_at")
        wakes_s = told.seconds_of(wake_at) if wake_at else None
        due_s = min(_due(told, place), default=None)
        if (wakes_s is None) != (due_s is None) or abs((wakes_s or 0.0) - (due_s or 0.0)) > SLACK_S:
            yield f"the job was given back at {event.version} until {wakes_s} s, and something is due at {due_s} s"


def a_job_that_was_given_back_is_taken_up_in_time(told: Reading) -> Broken:
    for _, event in _given_back(told):
        taken = next((later for later in told.log[event.version :] if later.type == "JobClaimed"), None)
        by_hand = [later for later in told.log[event.version :] if told.is_by_hand(later)]
        wake_at = event.data.get("wake_at")
        if by_hand and (taken is None or by_hand[0].version < taken.version):
            continue
        if any(life.robbed_at is not None for life in told.notes.lives):  # who robs a job does not know that it waits
            continue
        if taken is None or wake_at is None or taken.recorded_at < wake_at:
            yield f"given back at {event.version} until {wake_at}, taken up at {taken and taken.recorded_at}"
        elif told.is_quiet and seconds_between(wake_at, taken.recorded_at) > POLL_S + SETTINGS.heartbeat_s:
            yield f"given back at {event.version} until {wake_at}, taken up only at {taken.recorded_at}"


def _given_back(told: Reading) -> Iterator[tuple[int, Event]]:
    for place, event, _ in told.each("JobReleased"):
        if event.data["reason"] == "waits":
            yield place, event


def _could_start(told: Reading, before: Moment, key: str) -> bool:
    """Whether nothing at all is in the way of a sub-step of the phase that the job is in."""
    step, phase = told.sub_steps[key], phase_of(key)
    if before.status[key] != "pending" or phase != _current(told, before):
        return False
    if any(before.status[other] == "failed" for other in told.critical_of(phase)):
        return False
    return all(before.status[edge] in SETTLED for edge in (*step.after, *step.needs))


def _current(told: Reading, before: Moment) -> str:
    open_ = (phase_of(key) for key in told.sub_steps if before.status[key] not in SETTLED)
    return next(open_, "")


def _due(told: Reading, place: int) -> Iterator[float]:
    """When time alone moves something of the phase that the job is in."""
    before = told.before[place]
    if before.job_deadline is not None:
        yield before.job_deadline
    phase = _current(told, before)
    for key, status in before.status.items():
        if phase_of(key) != phase or before.status[group_of(key)] in SETTLED:
            continue
        if status in ("retrying", "interrupted", "waiting", "expanded") and before.deadline_of(key) < 1e9:
            yield before.deadline_of(key)
        last = told.last_before(place, *_SAYS_WHEN[status], key=key) if status in _SAYS_WHEN else None
        if last is not None and (at := last.data.get("retry_at") or last.data.get("until")):
            yield told.seconds_of(at)


_SAYS_WHEN = {
    "retrying": ("SubStepRetryScheduled",),
    "interrupted": ("SubStepInterrupted",),
    "waiting": ("SubStepWaiting",),
}
