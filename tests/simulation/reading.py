"""A story's log as an outsider reads it, beside the witness's notes: no rule of the engine is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from simulation.handlers import Shared
from simulation.notes import Asked, Call, Life, Notes
from simulation.story import Story, SubStepStory, TimeFault, TurnFault

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event
from steplog.eventstore.store import Head

SETTLED = frozenset({"completed", "failed", "skipped"})
UNWRITTEN = Shared().model_dump()
"""The context before anybody wrote."""

_OWNERS_END = ("JobCompleted", "JobFailed", "JobParked", "JobPaused", "JobCancelled", "JobReleased")

_STATUS_AFTER = {
    "SubStepStarted": "in_progress",
    "SubStepWaiting": "waiting",
    "SubStepCompleted": "completed",
    "SubStepFailed": "failed",
    "SubStepRetryScheduled": "retrying",
    "SubStepSkipped": "skipped",
    "SubStepInterrupted": "interrupted",
}


_ENDS_A_WAIT = ("SubStepCompleted", "SubStepFailed")


@dataclass(frozen=True, slots=True)
class Moment:
    """What the log says up to some event; each part is shared with its neighbours until it changes."""

    status: dict[str, str]
    generation: dict[str, int]
    failures: dict[str, int]
    """Those that count: since a person gave the sub-step another chance."""
    deaths: dict[str, int]
    """Interruptions by an owner's death, since a person gave the sub-step another chance."""
    context: dict[str, Any]
    writers: dict[str, dict[str, int]]
    """By field, the version at which each writer ("" is a person) last wrote it."""
    signals: dict[str, list[Event]]
    """By name, those that nothing has taken, the oldest first."""
    deadline: dict[str, float]
    """By sub-step that has begun and has one, in seconds since the log began."""
    job_deadline: float | None
    input: dict[str, Any]
    failed_phase: str = ""

    def last_writer(self, field: str) -> tuple[str, int]:
        """Who wrote the field last, and at which version."""
        return max(self.writers.get(field, {}).items(), key=lambda each: each[1], default=("", 0))


class Reading:
    """The log with the moment before each event."""

    def __init__(self, story: Story, log: list[Event], notes: Notes, head: Head) -> None:
        self.story = story
        self.log = log
        self.notes = notes
        self.head = head
        self.sub_steps: dict[str, SubStepStory] = dict(story.sub_steps())
        self.calls: dict[tuple[str, int], list[Call]] = {}
        for call in notes.calls:
            self.calls.setdefault((call.key, call.attempt), []).append(call)
        self.lives: dict[int, Life] = {life.number: life for life in notes.lives}
        self.by_hand = set(notes.by_hand)
        self.writer_of: dict[str, int] = {
            event_id: stored.process for stored in notes.stored for event_id in stored.event_ids
        }
        """By id of an event, the process that stored it."""
        self.before: list[Moment] = []
        self.end = self._read()
        self.starts: dict[tuple[str, int], int] = {
            (key, event.data["attempt"]): place for place, event, key in self.each("SubStepStarted")
        }
        """Where in the log each attempt was started."""

    def _read(self) -> Moment:
        zeros = dict.fromkeys(self.sub_steps, 0)
        now = Moment(
            status=dict.fromkeys(self.sub_steps, "pending"),
            generation=dict.fromkeys(self.sub_steps, 1),
            failures=zeros,
            deaths=zeros,
            context=dict(self.log[0].data["context"]),
            writers={},
            signals={},
            deadline={},
            job_deadline=self.story.deadline_s,
            input=self.log[0].data["input"],
        )
        for event in self.log:
            self.before.append(now)
            now = self._after(now, event)
        return now

    def _after(self, now: Moment, event: Event) -> Moment:
        key, kind, data = key_of(event), event.type, event.data
        if key and kind in _STATUS_AFTER:
            now = replace(now, status={**now.status, key: _STATUS_AFTER[kind]})
        if kind in _ENDS_A_WAIT and self._is_wait(event):
            now = self._with_signal_taken(now, key)
        match kind:
            case "SubStepStarted" if (deadline_s := self.sub_steps[key].deadline_s) and key not in now.deadline:
                return replace(now, deadline={**now.deadline, key: self.seconds(event) + deadline_s})
            case "SignalReceived":
                sent = [*now.signals.get(data["name"], ()), event]
                return replace(now, signals={**now.signals, data["name"]: sent})
            case "InputChanged":
                return replace(now, input=data["input"])
            case "JobReopened":
                return replace(now, job_deadline=self._deadline_from(event))
            case "ContextChanged":
                written = {**data["set"], **dict.fromkeys(data["unset"])}
                writers = {field: {**now.writers.get(field, {}), key: event.version} for field in written}
                return replace(now, context=_changed(now.context, data), writers={**now.writers, **writers})
            case "SubStepFailed":
                return replace(now, failures={**now.failures, key: now.failures[key] + 1})
            case "SubStepInterrupted" if data["cause"] == "owner died":
                return replace(now, deaths={**now.deaths, key: now.deaths[key] + 1})
            case "SubStepRetryScheduled" if self.is_by_hand(event):
                fresh = {**now.failures, key: 0}, {**now.deaths, key: 0}
                return replace(now, failures=fresh[0], deaths=fresh[1], deadline=_without(now.deadline, [key]))
            case "PhaseFailed":
                return replace(now, failed_phase=data["phase"])
            case "JobResumed":
                return self._resumed(now, event)
            case "SubStepReset":
                return _reset(now, data)
            case _:
                return now

    def _is_wait(self, event: Event) -> bool:
        return self.sub_steps[key_of(event)].wait is not None and not self.is_by_hand(event)

    def _with_signal_taken(self, now: Moment, key: str) -> Moment:
        wait = self.sub_steps[key].wait
        name = (wait and wait.signal) or ""
        return replace(now, signals={**now.signals, name: now.signals.get(name, [])[1:]})

    def _deadline_from(self, event: Event) -> float | None:
        return None if self.story.deadline_s is None else self.seconds(event) + self.story.deadline_s

    def _resumed(self, now: Moment, event: Event) -> Moment:
        """A person has had the job: deadlines of what has begun count anew, and other counts too."""
        begun = [key for key, status in now.status.items() if status in ("retrying", "interrupted")]
        allowed = {key: self.sub_steps[key].deadline_s for key in begun}
        anew = {key: self.seconds(event) + seconds for key, seconds in allowed.items() if seconds is not None}
        critical = self.critical_of(now.failed_phase) if now.failed_phase else []
        again = [key for key in critical if now.status[key] == "failed"]
        return replace(
            now,
            status={**now.status, **dict.fromkeys(again, "pending")},
            failures={**now.failures, **dict.fromkeys(again, 0)},
            deaths=dict.fromkeys(now.deaths, 0),
            deadline=_without(now.deadline, again)
            | {key: at for key, at in anew.items() if self.sub_steps[key].deadline_s},
            job_deadline=self._deadline_from(event),
            failed_phase="",
        )

    def is_by_hand(self, event: Event) -> bool:
        """Whether a person appended it."""
        return event.event_id in self.by_hand

    def critical_of(self, phase: str) -> list[str]:
        """Keys of the phase's sub-steps that the job cannot go on without."""
        return [key for key, step in self.sub_steps.items() if phase_of(key) == phase and not step.optional]

    def each(self, *types: str) -> Iterator[tuple[int, Event, str]]:
        """Place in the log, event and sub-step of every event of these types."""
        for place, event in enumerate(self.log):
            if event.type in types:
                yield place, event, key_of(event)

    def asked_for(self, event: Event) -> list[Asked]:
        """What the event's writer had asked of its sub-step's condition."""
        process, key = self.writer_of.get(event.event_id), key_of(event)
        return [
            asked
            for asked in self.notes.asked
            if (asked.process, asked.key) == (process, key) and asked.version < event.version
        ]

    def call_of(self, event: Event) -> Call | None:
        """The call of the attempt that the event is about."""
        calls = self.calls.get((key_of(event), event.data.get("attempt", 0)))
        return calls[0] if calls else None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing but people disturbs the owner."""
        kills = any(script.end == "kill" for step in self.sub_steps.values() for script in step.scripts)
        by_people = (isinstance(each, TurnFault | TimeFault) and each.what == "operator" for each in self.story.faults)
        return not kills and all(by_people)

    def owner_before(self, place: int) -> str | None:
        """The worker that owned the job before the event at that place."""
        last = self.last_before(place, *_OWNERS_END, "JobClaimed")
        return last.data["worker_id"] if last is not None and last.type == "JobClaimed" else None

    def is_stubborn(self, call: Call) -> bool:
        """Whether the handler goes on when it is cancelled, as one in a thread does."""
        return self.sub_steps[call.key].transactional or self.sub_steps[call.key].script(call.attempt).stubborn

    def seconds(self, event: Event) -> float:
        """When the event was recorded, in seconds of the loop."""
        return self.seconds_of(event.recorded_at)

    def seconds_of(self, instant: str) -> float:
        """That instant in seconds of the loop."""
        return seconds_between(self.log[0].recorded_at, instant)

    def at_version(self, version: int) -> Moment:
        """What the log of that length says."""
        return self.before[version] if version < len(self.before) else self.end

    def after(self, place: int) -> Moment:
        """The moment after the event at that place."""
        return self.before[place + 1] if place + 1 < len(self.before) else self.end

    def next_to(self, place: int) -> Event | None:
        """The event behind that place."""
        return self.log[place + 1] if place + 1 < len(self.log) else None

    def last_before(self, place: int, *types: str, key: str = "") -> Event | None:
        """The last such event before that place, of that sub-step if one is given."""
        for event in reversed(self.log[:place]):
            if event.type in types and (not key or key_of(event) == key):
                return event
        return None

    def follows(self, key: str, other: str) -> bool:
        """Whether edges lead from the sub-step back to the other."""
        step = self.sub_steps[key]
        edges = {*step.after, *step.needs}
        return other in edges or any(self.follows(edge, other) for edge in edges)


def _reset(now: Moment, data: dict[str, Any]) -> Moment:
    keys = data["sub_steps"]
    return replace(
        now,
        status={**now.status, **dict.fromkeys(keys, "pending")},
        generation={**now.generation, **{key: now.generation[key] + 1 for key in keys}},
        failed_phase="" if now.failed_phase in map(phase_of, keys) else now.failed_phase,
        failures={**now.failures, **dict.fromkeys(keys, 0)},
        deaths={**now.deaths, **dict.fromkeys(keys, 0)},
        deadline=_without(now.deadline, keys),
        context=_changed(now.context, data),
        writers={
            field: {writer: version for writer, version in of.items() if writer not in keys}
            for field, of in now.writers.items()
        },
    )


def _without(deadlines: dict[str, float], keys: list[str]) -> dict[str, float]:
    return {key: at for key, at in deadlines.items() if key not in keys}


def _changed(context: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    changed = {**context, **data["set"]}
    return {field: value for field, value in changed.items() if field not in data["unset"]}


def key_of(event: Event) -> str:
    """The sub-step that the event is about, "" for none."""
    return f"{event.data['phase']}/{event.data['sub_step']}" if "sub_step" in event.data else ""


def phase_of(key: str) -> str:
    return key.partition("/")[0]
