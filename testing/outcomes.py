"""What a run came to, and how that of a crashed job may not differ from that of an undisturbed one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steplog.engine.decider import idempotency_key
from steplog.eventstore.codec import encode
from steplog.projections.fan_out import item_of, items_of, results_of
from steplog.projections.plan import ITEM_MARK, UNDO_MARK, Place, Shape, key_of, shown_place
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State, SubStepState

_CHARS_MAX = 300
"""How much of a value a message shows."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over."""

    state: State
    at_crash: State | None
    calls: Counter[Place]
    """How often each handler was called; of a fan-out, for each item."""
    calls_since: Counter[Place]
    """How often since the crash."""
    effects: Counter[str]
    """What it did to the outside world."""


def broken_promises(run: Run, undisturbed: Run) -> Iterator[str]:
    """What no crash may do, whatever the handlers are like."""
    for place, calls in run.calls.items():
        at_crash = _status_at(run.at_crash, place) if run.at_crash else None
        most = undisturbed.calls[place] + (at_crash == "in_progress")
        if at_crash == "completed" and run.calls_since[place]:
            yield f"{shown_place(place)} had completed, and ran again"
        elif calls > most:
            yield f"{shown_place(place)} ran {calls} times (expected at most {most})"


def _status_at(state: State, place: Place) -> str:
    key, _, item = place.partition(ITEM_MARK)
    sub_step = sub_step_of(state, key)
    if place.endswith(UNDO_MARK):
        return sub_step["compensation"]["status"] if sub_step["compensation"] else "pending"
    return item_of(sub_step, item)["status"] if item and sub_step["items"] else sub_step["status"]


def differences(run: Run, undisturbed: Run, may_differ: Collection[str]) -> Iterator[str]:
    """In how the job ended, its results, its context and its effects; not in times, attempts and ids."""
    if _failed_as_declared(run.state):
        return
    wanted, found = _outcome(undisturbed.state), _outcome(run.state)
    for what in wanted | found:
        if found.get(what) != wanted.get(what) and what not in may_differ:
            yield f"{what}: {_short(found.get(what))} (undisturbed: {_short(wanted.get(what))})"
    before, now = _effects(undisturbed), _effects(run)
    for effect in before | now:
        if now[effect] != before[effect]:
            yield f"effect {_short(effect)} happened {now[effect]} times (undisturbed: {before[effect]})"


def _failed_as_declared(state: State) -> bool:
    """Whether an interruption was the end of a sub-step because its policy says so: then nothing can be compared."""
    return any(
        step["on_interrupt"] == "fail" and any(each["interruptions"] for each in _with_items(sub_step_of(state, key)))
        for key, step in Shape.of(state["plan"]).sub_steps.items()
    )


def _with_items(sub_step: SubStepState) -> Iterator[SubStepState]:
    yield sub_step
    if sub_step["items"] is not None:
        yield from (item.state for item in items_of(sub_step))


def _outcome(state: State) -> dict[str, str]:
    names = _names(state)
    found = {"job": _ended(state["status"], state["error"], None)}
    for phase, of_phase in state["phases"].items():
        for name, step in of_phase["sub_steps"].items():
            key = key_of(phase, name)
            found[f"end of {key}"] = _ended(step["status"], step["error"], step["reason"])
            found[key] = _renamed(_text(results_of(step)), names)
            for item in items_of(step) if step["items"] else ():
                end = _ended(item.state["status"], item.state["error"], item.state["reason"])
                found[f"end of {key}[{item.key}]"] = end
    return found | {f"context.{name}": _renamed(_text(value), names) for name, value in state["context"].items()}


def _ended(status: str, error: Mapping[str, Any] | None, reason: str | None) -> str:
    if status in ("failed", "parked") and error is not None:
        return f"{status} with {error['type']}"
    return f"{status}: {reason}" if reason else status


def _effects(run: Run) -> Counter[str]:
    names, renamed = _names(run.state), Counter[str]()
    for effect, times in run.effects.items():
        renamed[_renamed(effect, names)] += times
    return renamed


def _names(state: State) -> dict[str, str]:
    """What stands for the ids and keys of this very job, so that two jobs can be compared."""
    names = {state["job_id"]: "<job id>"}
    for key in Shape.of(state["plan"]).sub_steps:
        sub_step = sub_step_of(state, key)
        if found := sub_step["idempotency_key"]:
            names[found] = f"<key of {key}>"
        if sub_step["compensation"] is not None:
            names[sub_step["compensation"]["idempotency_key"]] = f"<key of the compensation of {key}>"
        for item in items_of(sub_step) if sub_step["items"] else ():
            generation = item.state["key_generation"]
            names[idempotency_key(state["job_id"], key, generation, item.key)] = f"<key of {key}[{item.key}]>"
    return names


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for name, stands_for in names.items():
        text = text.replace(name, stands_for)
    return text


def _text(value: object) -> str:
    return encode(value).decode()


def _short(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= _CHARS_MAX else f"{text[:_CHARS_MAX]}…"
