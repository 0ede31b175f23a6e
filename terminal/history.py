"""Events as lines: version, time, type, sub-step, and what each says in a few words. Pure functions of the events."""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches

import click

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import CATALOGUE, Event
from steplog.terminal.look import Look
from steplog.terminal.text import one_line, pad, pairs, short, shorten, width
from steplog.terminal.times import duration, since
from steplog.terminal.tree import error_line

SUMMARY_COLUMNS = 120
_TYPE_COLUMNS = max(map(len, CATALOGUE))
_COLOURS = {
    "SubStepCompleted": "green",
    "PhaseCompleted": "green",
    "JobCompleted": "green",
    "SubStepFailed": "red",
    "PhaseFailed": "red",
    "JobFailed": "red",
    "SubStepInterrupted": "yellow",
    "SubStepRetryScheduled": "yellow",
    "JobParked": "yellow",
    "LateOutcome": "yellow",
}


class HistoryLines:
    """Lines of one job's events, in columns that fit all of them; made from its first event and its last version."""

    def __init__(self, first: Event, last_version: int, look: Look) -> None:
        self._began = first.recorded_at
        self._look = look
        self._versions = max(3, len(str(last_version)))
        phases = first.data.get("plan", {}).get("phases", [])
        names = [f"{phase['name']}/{step['name']}" for phase in phases for step in phase["sub_steps"]]
        self._names = min(40, max((width(one_line(name)) for name in names), default=8))

    def line(self, event: Event) -> str:
        """Version, time, type, sub-step and summary."""
        look = self._look
        kind = look.paint(pad(one_line(event.type), _TYPE_COLUMNS), _COLOURS.get(event.type))
        cells = [f"{event.version:>{self._versions}}", f"{self._time(event):>9}", kind, pad(place(event), self._names)]
        return look.fit("  ".join([*cells, summary(event)]).rstrip())

    def _time(self, event: Event) -> str:
        if self._look.utc:
            return event.recorded_at
        return f"+{seconds_between(self._began, event.recorded_at):.3f}s"


def place(event: Event) -> str:
    """The sub-step or phase that an event is about."""
    phase, sub_step, item = (event.data.get(name) for name in ("phase", "sub_step", "item"))
    names = [part for part in (phase, sub_step) if part]
    return one_line("/".join(names) + (f"[{item}]" if item else ""))


def summary(event: Event) -> str:
    """What the event says beyond its type and place."""
    said = _SUMMARIES.get(event.type, _rest)(event)
    return shorten(said, SUMMARY_COLUMNS)


def known_types(names: Collection[str]) -> frozenset[str]:
    """Event types by name, in any case. Raises click.BadParameter for one that is not in the catalogue."""
    by_name = {name.lower(): name for name in CATALOGUE}
    unknown = [name for name in names if name.lower() not in by_name]
    if unknown:
        close = get_close_matches(unknown[0].lower(), by_name, n=3) or sorted(by_name)
        known = ", ".join(by_name[name] for name in close)
        raise click.BadParameter(f"no event type {unknown[0]!r}: {known}", param_hint="'--type'")
    return frozenset(by_name[name.lower()] for name in names)


def _created(event: Event) -> str:
    data = event.data
    phases = data["plan"].get("phases", [])
    sub_steps = sum(len(phase["sub_steps"]) for phase in phases)
    key = f", key {one_line(data['key'])}" if data.get("key") else ""
    return f"{one_line(data['workflow'])} v{one_line(data['workflow_version'])}: {sub_steps} sub-steps{key}"


def _claimed(event: Event) -> str:
    return f"{event.data['reason']}, worker {one_line(event.data['worker_id'])[-8:]}, epoch {event.data['epoch']}"


def _released(event: Event) -> str:
    wake_at = event.data.get("wake_at")
    return one_line(event.data["reason"]) + (f", until {wake_at}" if wake_at else "")


def _started(event: Event) -> str:
    return f"attempt {event.data['attempt']}"


def _expanded(event: Event) -> str:
    keys = [item["key"] for item in event.data["items"]]
    named = f": {one_line(', '.join(keys[:3]))}{', …' if len(keys) > 3 else ''}" if keys else ""
    return f"{len(keys)} items{named}" + ("" if event.data["last"] else ", and more to come")


def _waiting(event: Event) -> str:
    return one_line(" ".join(str(event.data[name]) for name in ("kind", "signal", "until") if event.data.get(name)))


def _progressed(event: Event) -> str:
    done, total = event.data["done"], event.data.get("total")
    of = f"/{total:g}" if total is not None else ""
    return f"{done:g}{of} {one_line(event.data.get('note', ''))}".rstrip()


def _logged(event: Event) -> str:
    lines = event.data["lines"]
    return one_line(lines[0]) + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "") if lines else ""


def _checkpointed(event: Event) -> str:
    draft = event.data.get("draft", {}).get("set", {})
    return f"cursor {short(event.data.get('cursor'))}" + (f", draft {one_line(', '.join(draft))}" if draft else "")


def _completed(event: Event) -> str:
    took = duration(event.data["seconds"])
    refused = event.data.get("context_refused")
    result = f" → {short(event.data['result'])}" if "result" in event.data else ""
    return took + result + (f", context refused: {one_line(', '.join(refused))}" if refused else "") + _who(event, ", ")


def _failed(event: Event) -> str:
    retryable = "" if event.data["error"].get("retryable", True) else ", not to be retried"
    attempt = f"attempt {event.data['attempt']}{retryable}{_who(event, ', ')}"
    return f"{duration(event.data['seconds'])}, {attempt}: {_error(event)}"


def _retry_scheduled(event: Event) -> str:
    return f"attempt {event.data['attempt']} in {since(event.recorded_at, event.data['retry_at'])}{_who(event, ', ')}"


def _skipped(event: Event) -> str:
    return _who(event) or f"{event.data['cause']}: {one_line(event.data['reason'])}"


def _interrupted(event: Event) -> str:
    return f"attempt {event.data['attempt']}: {event.data['cause']}"


def _context(event: Event) -> str:
    unset = event.data.get("unset", [])
    parts = [pairs(event.data.get("set", {}).items()), f"unset {one_line(', '.join(unset))}" if unset else ""]
    parts.append(_who(event))
    return ", ".join(part for part in parts if part)


def _parked(event: Event) -> str:
    return one_line(": ".join(event.data[name] for name in ("reason", "detail") if event.data.get(name)))


def _job_failed(event: Event) -> str:
    return _error(event)


def _job_completed(event: Event) -> str:
    return one_line("; ".join(event.data.get("warnings", [])))


def _phase_failed(event: Event) -> str:
    return one_line(", ".join(event.data["failed"]))


def _late(event: Event) -> str:
    said = _error(event) or one_line(event.data.get("reason", "")) or short(event.data.get("result"))
    return f"attempt {event.data['attempt']} {event.data['outcome']}: {said}"


def _reset(event: Event) -> str:
    group = event.data["sub_steps"][0]
    keys = [f"{group}[{item}]" for item in event.data["items"]] if "items" in event.data else event.data["sub_steps"]
    more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
    return ", ".join(part for part in (one_line(", ".join(keys[:2])) + more, _context(event)) if part)


def _input(event: Event) -> str:
    return f"{short(event.data.get('input'))}{_who(event, ', ')}"


def _forked(event: Event) -> str:
    data = event.data
    parent = f"{one_line(data['from_job_id'])[-8:]}, version {data['from_version']}"
    return f"from {parent}: {data['inherited']} sub-steps inherited{_who(event, ', ')}"


def _inherited(event: Event) -> str:
    said = _error(event) or one_line(event.data.get("reason", ""))
    said = f"{len(event.data['items'])} items" if "items" in event.data else said
    return f"{event.data['status']} at version {event.data['from_event']}{f': {said}' if said else ''}"


def _who(event: Event, before: str = "") -> str:
    """Who did it by hand, and why; nothing where nobody did."""
    by, reason = event.data.get("by", "engine"), event.data.get("reason")
    return "" if by == "engine" else f"{before}by {one_line(by)}{f': {one_line(reason)}' if reason else ''}"


def _error(event: Event) -> str:
    return error_line(event.data.get("error"))


def _nothing(event: Event) -> str:
    return ""


def _rest(event: Event) -> str:
    """Whatever the event says, for types with no words of their own."""
    placed = ("phase", "sub_step", "item", "plan")
    return pairs([(name, value) for name, value in event.data.items() if name not in placed], 30)


_SUMMARIES: dict[str, Callable[[Event], str]] = {
    "JobCreated": _created,
    "JobClaimed": _claimed,
    "JobReleased": _released,
    "JobForked": _forked,
    "JobParked": _parked,
    "JobPauseRequested": _who,
    "JobPaused": _who,
    "JobResumed": _who,
    "JobCancelRequested": _who,
    "JobCancelled": _who,
    "JobReopened": _who,
    "SecretsErased": _who,
    "JobCompleted": _job_completed,
    "JobFailed": _job_failed,
    "PhaseStarted": _nothing,
    "PhaseCompleted": _nothing,
    "PhaseFailed": _phase_failed,
    "SubStepStarted": _started,
    "SubStepExpanded": _expanded,
    "SubStepWaiting": _waiting,
    "SubStepProgressed": _progressed,
    "SubStepLogged": _logged,
    "SubStepCheckpointed": _checkpointed,
    "SubStepCompleted": _completed,
    "SubStepFailed": _failed,
    "SubStepRetryScheduled": _retry_scheduled,
    "SubStepSkipped": _skipped,
    "SubStepInterrupted": _interrupted,
    "SubStepReset": _reset,
    "SubStepInherited": _inherited,
    "ContextChanged": _context,
    "InputChanged": _input,
    "LateOutcome": _late,
    "CompensationStarted": _started,
    "CompensationCompleted": _completed,
    "CompensationFailed": _failed,
    "CompensationInterrupted": _interrupted,
}
