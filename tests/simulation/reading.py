"""A story's log as an outsider reads it, beside the witness's notes: no rule of the engine is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from simulation.handlers import Shared
from simulation.moments import SETTLED, Moment, Unfolding, group_of, key_of, phase_of
from simulation.notes import Asked, AttemptId, Call, Life, Notes
from simulation.story import Script, Story, SubStepStory, TimeFault, TurnFault

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event
from steplog.eventstore.store import Head

__all__ = ["SETTLED", "UNWRITTEN", "Moment", "Reading", "attempt_of", "group_of", "key_of", "phase_of"]

UNWRITTEN = Shared().model_dump()
"""The context before anybody wrote."""

_OWNERS_END = ("JobCompleted", "JobFailed", "JobParked", "JobPaused", "JobCancelled", "JobReleased")


class Reading:
    """The log with the moment before each event."""

    def __init__(self, story: Story, log: list[Event], notes: Notes, head: Head) -> None:
        self.story = story
        self.log = log
        self.notes = notes
        self.head = head
        self.sub_steps: dict[str, SubStepStory] = _WithItems(story.sub_steps())
        """As declared; an item's is there for whoever asks."""
        self.calls: dict[AttemptId, list[Call]] = {}
        for call in notes.calls:
            self.calls.setdefault(call.id, []).append(call)
        self.lives: dict[int, Life] = {life.number: life for life in notes.lives}
        self.by_hand = set(notes.by_hand)
        self.writer_of: dict[str, int] = {
            event_id: stored.process for stored in notes.stored for event_id in stored.event_ids
        }
        """By id of an event, the process that stored it."""
        self.before: list[Moment] = []
        self.end = self._read(Unfolding(story, log[0], self.by_hand))
        self.starts: dict[AttemptId, int] = {
            attempt_of(event): place for place, event, _ in self.each("SubStepStarted")
        }
        """Where in the log each attempt was started."""

    def _read(self, unfolding: Unfolding) -> Moment:
        now = unfolding.beginning()
        for event in self.log:
            self.before.append(now)
            now = unfolding.after(now, event)
        return now

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
        calls = self.calls.get(attempt_of(event))
        return calls[0] if calls else None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing but people disturbs the owner."""
        scripts = [script for step in self.sub_steps.values() for script in (*step.scripts, *_undoing(step))]
        kills = any(script.end == "kill" for script in scripts)
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

    def result_of(self, key: str, place: int) -> Any:
        """What the sub-step has come to before that place: of a fan-out, what its items have, in their order."""
        before = self.before[place]
        completed = self.last_before(place, "SubStepCompleted", key=key)
        if before.status[key] != "completed" or completed is None:
            return None
        if key not in before.listed or "result" in completed.data:
            return completed.data.get("result")
        done = [item for item in before.items_of(key) if before.status[item] == "completed"]
        return [self.result_of(item, place) for item in done]

    def was_asked_to_cancel(self, place: int) -> bool:
        """Whether a person had asked for that and nothing came of it yet."""
        asked = self.last_before(place, "JobCancelRequested", *_OWNERS_END[:-1], "JobResumed", "JobReopened")
        return asked is not None and asked.type == "JobCancelRequested"

    def was_asked_to_stop(self, place: int) -> bool:
        """The same, or to pause."""
        kinds = ("JobCancelRequested", "JobPauseRequested")
        asked = self.last_before(place, *kinds, *_OWNERS_END[:-1], "JobResumed", "JobReopened")
        return asked is not None and asked.type in kinds

    def follows(self, key: str, other: str) -> bool:
        """Whether edges lead from the sub-step back to the other."""
        step, other = self.sub_steps[key], group_of(other)
        edges = {*step.after, *step.needs}
        return other in edges or any(self.follows(edge, other) for edge in edges)


class _WithItems(dict[str, SubStepStory]):
    """Sub-steps as declared by key; an item's key finds what it is, and is not among them."""

    def __init__(self, declared: Iterable[tuple[str, SubStepStory]]) -> None:
        super().__init__(declared)
        self._items: dict[str, SubStepStory] = {}

    def __missing__(self, key: str) -> SubStepStory:
        group, _, item = key.removesuffix("]").partition("[")
        if key not in self._items:
            self._items[key] = super().__getitem__(group).of_item(item)
        return self._items[key]


def _undoing(step: SubStepStory) -> tuple[Script, ...]:
    return step.undo.scripts if step.undo else ()


def attempt_of(event: Event) -> AttemptId:
    """Which attempt the event is about."""
    return key_of(event), event.data["generation"], event.data.get("attempt", 0)
