"""Of what handlers say on their way, and of what they are given beside context and results."""

from __future__ import annotations

from typing import Any

from simulation.invariants.terms import Broken
from simulation.notes import Call
from simulation.reading import Reading, attempt_of


def lines_are_kept_in_order_and_once(told: Reading) -> Broken:
    for call in told.notes.calls:
        kept = [line for event in _of(told, "SubStepLogged", call) for line in event["lines"]]
        if kept != call.lines[: len(kept)]:
            yield f"{call.key}#{call.attempt} said {call.lines}, kept are {kept}"
        if _is_recorded(told, call) and kept != call.lines:
            yield f"{call.key}#{call.attempt} ended, said {call.lines}, and kept are only {kept}"


def progress_is_what_was_said_and_the_last_is_kept(told: Reading) -> Broken:
    for call in told.notes.calls:
        kept, said = [event["done"] for event in _of(told, "SubStepProgressed", call)], iter(call.told)
        if not all(done in said for done in kept):
            yield f"{call.key}#{call.attempt} said {call.told}, kept are {kept}"
        if _is_recorded(told, call) and kept[-1:] != call.told[-1:]:
            yield f"{call.key}#{call.attempt} said {call.told} to its end, kept are {kept}"


def a_handler_is_given_the_input_as_it_was_at_its_start(told: Reading) -> Broken:
    for call in told.notes.calls:
        place = told.starts.get(call.id)
        if place is not None and call.input != {"n": 0, **told.before[place].input}:
            yield f"{call.key}#{call.attempt} was given {call.input}, not {told.before[place].input}"


def _of(told: Reading, kind: str, call: Call) -> list[dict[str, Any]]:
    return [event.data for _, event, _ in told.each(kind) if attempt_of(event) == call.id]


def _is_recorded(told: Reading, call: Call) -> bool:
    """Whether the log has how the handler ended, and that in time."""
    return call.outcome == "return" and any(
        attempt_of(event) == call.id and not told.is_by_hand(event) for _, event, _ in told.each("SubStepCompleted")
    )
