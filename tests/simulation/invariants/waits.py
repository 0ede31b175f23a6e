"""Of waiting: for time, never too short and never long after it; for a signal, each taken once and by one."""

from __future__ import annotations

from simulation.invariants.terms import SLACK_S, STOPS, Broken, looked_for_s
from simulation.reading import Reading
from simulation.world import SETTINGS

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event


def a_wait_is_as_long_as_it_was_declared(told: Reading) -> Broken:
    for _, event, key in told.each("SubStepWaiting"):
        wait, until = told.sub_steps[key].wait, event.data.get("until")
        if wait is None or (until is None) != (wait.seconds is None):
            yield f"{key} waits at {event.version} until {until}, as {wait} says"
        elif until is not None and abs(seconds_between(event.recorded_at, until) - (wait.seconds or 0.0)) > SLACK_S:
            yield f"{key} waits at {event.version} until {until}, which is not {wait.seconds:g} s"


def a_wait_ends_for_the_oldest_signal_or_when_its_time_is_over(told: Reading) -> Broken:
    for place, event, key in told.each("SubStepCompleted", "SubStepFailed"):
        wait = told.sub_steps[key].wait
        if wait is None or told.is_by_hand(event):
            continue
        sent = told.before[place].signals.get(wait.signal or "", [])
        error = event.data["error"]["type"] if event.type == "SubStepFailed" else None
        until = _begun(told, place, key).data.get("until")
        if sent:
            payload = sent[0].data["payload"]
            fits = error == "SignalRefused" if isinstance(payload, list) else event.data.get("result") == payload
        elif until is None or until > event.recorded_at:
            fits = False
        elif wait.signal is None or wait.has_default:
            fits = error is None and event.data.get("result") == (0 if wait.signal else None)
        else:
            fits = error == "SignalTimeout"
        if not fits:
            yield f"{key} ended at {event.version} with {event.data}, until {until}, signals {sent}"


def a_wait_ends_soon_after_it_could(told: Reading) -> Broken:
    """Where nobody but those who send signals has a part in it."""
    if not told.is_quiet or any(event.type != "SignalReceived" for event in told.log if told.is_by_hand(event)):
        return
    for place, event, key in told.each("SubStepCompleted", "SubStepFailed"):
        if told.sub_steps[key].wait is None:
            continue
        begun = _begun(told, place, key)
        between = told.log[begun.version : place]
        changed_hands = any(other.type == "JobClaimed" and other.data["reason"] != "wake" for other in between)
        if changed_hands or any(other.type in STOPS for other in between) or told.story.stops_writers:
            continue
        sent = told.before[place].signals.get(told.sub_steps[key].wait.signal or "", [])  # type: ignore[union-attr]
        could = [each for each in (begun.data.get("until"), sent[0].recorded_at if sent else None) if each]
        late_s = seconds_between(max(begun.recorded_at, min(could)), event.recorded_at)
        if late_s > SETTINGS.heartbeat_s + looked_for_s(told):
            yield f"{key} could have gone on {late_s:g} s before it did, at {event.version}"


def _begun(told: Reading, place: int, key: str) -> Event:
    begun = told.last_before(place, "SubStepWaiting", key=key)
    assert begun is not None, key
    return begun
