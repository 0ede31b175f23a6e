"""Sub-steps that only wait, for time or for a signal: they hold no attempt, no thread and no place in a phase. Pure."""

from __future__ import annotations

from typing import Any

from steplog.engine.deciding.draft import Draft, attempt_of, error_of
from steplog.engine.facts import AttemptId, ErrorData
from steplog.eventstore import events as ev
from steplog.eventstore.clock import later, seconds_between
from steplog.projections.plan import Key, WaitPlan, split_key
from steplog.projections.readiness import in_order, sub_step_of
from steplog.projections.state import Wait


def begin_wait(draft: Draft, key: Key) -> None:
    """Let the sub-step wait from now on."""
    phase, name = split_key(key)
    wait = draft.shape.waits[phase][key]
    until = None if wait["seconds"] is None else later(draft.now, wait["seconds"])
    generation = sub_step_of(draft.state, key)["generation"]
    draft.emit(
        ev.SubStepWaiting(
            phase=phase, sub_step=name, generation=generation, kind=wait["kind"], until=until, signal=wait["signal"]
        )
    )


def end_waits(draft: Draft, phase: str) -> None:
    """Settle what waited for a signal that came, or for a time that is over."""
    take_signals(draft, phase)
    for key, wait in _waiting(draft, phase):
        if wait["until"] is not None and wait["until"] <= draft.now:
            _time_is_over(draft, key, draft.shape.waits[phase][key])


def take_signals(draft: Draft, phase: str) -> None:
    """Settle what waited for a signal that came: where there is one, time ends no wait for it."""
    for key, wait in _waiting(draft, phase):
        sent = draft.state["signals"].get(wait["signal"]) if wait["signal"] is not None else None
        if sent:
            _take(draft, key, sent[0])


def _waiting(draft: Draft, phase: str) -> list[tuple[Key, Wait]]:
    of_phase = draft.state["phases"][phase]
    waits = {name: wait for name in of_phase["suspended"] if (wait := of_phase["sub_steps"][name]["wait"])}
    return [(key, waits[split_key(key)[1]]) for key in in_order(draft.shape, phase, waits)]


def _take(draft: Draft, key: Key, signal: dict[str, Any]) -> None:
    """The oldest signal ends the wait, and no other: folding the outcome takes it away."""
    refusal = draft.situation.unfit.get((key, signal["signal_id"]))
    if refusal is None:
        _complete(draft, key, signal["payload"])
    else:
        _fail(draft, key, refusal)


def _time_is_over(draft: Draft, key: Key, wait: WaitPlan) -> None:
    plan = draft.shape.sub_steps[key]
    if wait["kind"] == "sleep" or "default" in plan:
        _complete(draft, key, plan.get("default"))
    else:
        _fail(draft, key, error_of("SignalTimeout", f"no signal {wait['signal']} came within {wait['seconds']:g} s"))


def _complete(draft: Draft, key: Key, result: Any) -> None:
    draft.emit(ev.SubStepCompleted(**_of(draft, key), result=result, seconds=_seconds(draft, key)))


def _fail(draft: Draft, key: Key, error: ErrorData) -> None:
    draft.emit(ev.SubStepFailed(**_of(draft, key), error=error, seconds=_seconds(draft, key)))


def _of(draft: Draft, key: Key) -> dict[str, Any]:
    """Waits are no attempts; their outcome says the number that the next one would have."""
    sub_step = sub_step_of(draft.state, key)
    return attempt_of(AttemptId(*split_key(key), sub_step["generation"], sub_step["attempts"] + 1))


def _seconds(draft: Draft, key: Key) -> float:
    return seconds_between(sub_step_of(draft.state, key)["started_at"] or draft.now, draft.now)
