"""What a run came to, and how that of a crashed job may not differ from that of an undisturbed one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steplog.eventstore.codec import encode
from steplog.projections.plan import Key, Shape, key_of
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State

_CHARS_MAX = 300
"""How much of a value a message shows."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over."""

    state: State
    at_crash: State | None
    calls: Counter[Key]
    """How often each handler was called."""
    calls_since: Counter[Key]
    """How often since the crash."""
    effects: Counter[str]
    """What it did to the outside world."""


def broken_promises(run: Run, undisturbed: Run) -> Iterator[str]:
    """What no crash may do, whatever the handlers are like."""
    for key, calls in run.calls.items():
        at_crash = sub_step_of(run.at_crash, key)["status"] if run.at_crash else None
        most = undisturbed.calls[key] + (at_crash == "in_progress")
        if at_crash == "completed" and run.calls_since[key]:
            yield f"{key} had completed, and ran again"
        elif calls > most:
            yield f"{key} ran {calls} times (expected at most {most})"


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
        step["on_interrupt"] == "fail" and sub_step_of(state, key)["interruptions"]
        for key, step in Shape.of(state["plan"]).sub_steps.items()
    )


def _outcome(state: State) -> dict[str, str]:
    names = _names(state)
    found = {"job": _ended(state["status"], state["error"], None)}
    for phase, of_phase in state["phases"].items():
        for name, step in of_phase["sub_steps"].items():
            key = key_of(phase, name)
            found[f"end of {key}"] = _ended(step["status"], step["error"], step["reason"])
            found[key] = _renamed(_text(step["result"]), names)
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
        if found := sub_step_of(state, key)["idempotency_key"]:
            names[found] = f"<key of {key}>"
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
