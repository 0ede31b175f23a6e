"""Where two jobs of one workflow part: their histories compared, sub-step by sub-step. A pure function of the events.

Siblings run at once, so the order of their events is chance: each sub-step's events are compared with the other job's
of the same sub-step, and likewise each phase's and the job's own. Ids, times, workers, and what a handler reported on
the way (progress, log lines) say nothing of what the jobs did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, TypedDict

from steplog.eventstore.events import Event
from steplog.projections.diff import changes
from steplog.projections.plan import place_of, shown_place

OWNERSHIP = "(owner)"
"""The place of claims and releases: no phase is called so, as a phase's events are at its name."""

_CHANCE = frozenset({"SubStepProgressed", "SubStepLogged"})
_OWNERSHIP = frozenset({"JobClaimed", "JobReleased"})
_GIVEN = ("workflow_version", "plan", "input", "context", "tags")
"""What a job is created with that may differ before anything happened."""
_IDS_AND_TIMES = frozenset(
    {
        "worker_id", "claim_id", "epoch", "idempotency_key", "signal_id", "group", "lost_version", "lost_hash",
        "from_event", "retry_at", "until", "wake_at", "started_at", "completed_at", "seconds",
    }
)  # fmt: skip
_ENDS = frozenset({"JobCompleted", "JobCancelled"})


class Difference(TypedDict):
    """A field that differs; a value is None where that job has none."""

    path: list[str | int]
    a: Any
    b: Any


class Happened(TypedDict):
    """An event of one of the jobs."""

    version: int
    type: str
    recorded_at: str


class Divergence(TypedDict):
    """Where the jobs part. One of the events is None where that job ended without one."""

    place: str
    a: Happened | None
    b: Happened | None
    differences: list[Difference]


class Comparison(TypedDict):
    """What the jobs were given that differs, and the first thing after that; None where they did the same.

    A job that has not ended may still do what the other one did: that it has not yet is no divergence.
    """

    given: list[Difference]
    divergence: Divergence | None
    events: dict[str, int]
    """How many events of each job, `a` and `b`, were looked at."""


def compare(a: Iterable[Event], b: Iterable[Event]) -> Comparison:
    """Compare two jobs from their first event on, in one pass over both."""
    comparing = _Comparing()
    for pair in zip_longest(a, b):
        for side, event in enumerate(pair):
            if event is not None:
                comparing.take(side, event)
    counts = comparing.count
    return Comparison(given=comparing.given, divergence=comparing.first(), events={"a": counts[0], "b": counts[1]})


@dataclass(slots=True)
class _Comparing:
    """The events of each place that wait for the other job's, and the divergences so far by place."""

    count: list[int] = field(default_factory=lambda: [0, 0])
    given: list[Difference] = field(default_factory=list)
    _first: list[Event | None] = field(default_factory=lambda: [None, None])
    _ended: list[bool] = field(default_factory=lambda: [False, False])
    _unmatched: dict[str, tuple[deque[Event], deque[Event]]] = field(default_factory=dict)
    _found: dict[str, Divergence] = field(default_factory=dict)

    def take(self, side: int, event: Event) -> None:
        self.count[side] += 1
        self._ended[side] = event.type in _ENDS or (self._ended[side] and event.type != "JobReopened")
        if event.version == 1:
            self._first[side] = event
            one, other = self._first
            if one and other:
                self.given = [*_differences(_given(one), _given(other))]
        elif event.type not in _CHANCE:
            for place in _places(event):
                self._match(side, place, event)

    def _match(self, side: int, place: str, event: Event) -> None:
        if place in self._found:
            return
        waiting = self._unmatched.setdefault(place, (deque(), deque()))
        if not waiting[1 - side]:
            waiting[side].append(event)
            return
        other = waiting[1 - side].popleft()
        one, two = (event, other) if side == 0 else (other, event)
        differences = [] if one.type != two.type else [*_differences(_said(one), _said(two))]
        if one.type != two.type or differences:
            self._found[place] = Divergence(place=place, a=_event(one), b=_event(two), differences=differences)
            del self._unmatched[place]

    def first(self) -> Divergence | None:
        """The divergence that began first in one of the jobs."""
        missing = [
            Divergence(place=place, a=None if side else _event(events[0]), b=_event(events[0]) if side else None,
                       differences=[])
            for place, queues in self._unmatched.items()
            for side, events in enumerate(queues)
            if events and self._ended[1 - side]
        ]  # fmt: skip
        return min([*self._found.values(), *missing], key=_began, default=None)


def _places(event: Event) -> Iterator[str]:
    """Where the event happened."""
    phase, sub_step = event.data.get("phase"), event.data.get("sub_step")
    if event.type in _OWNERSHIP:
        yield OWNERSHIP
    elif event.type == "SubStepReset":
        yield from event.data["sub_steps"]
    elif event.type.startswith("Job") or phase is None:
        yield ""
    else:
        yield shown_place(place_of(phase, sub_step, event.data.get("item"))) if sub_step else phase


def _given(event: Event) -> dict[str, Any]:
    return {name: event.data[name] for name in _GIVEN if name in event.data}


def _said(event: Event) -> dict[str, Any]:
    said = {name: value for name, value in event.data.items() if name not in _IDS_AND_TIMES}
    if isinstance(said.get("error"), dict):
        said["error"] = {name: value for name, value in said["error"].items() if name != "traceback"}
    return said


def _differences(one: dict[str, Any], other: dict[str, Any]) -> Iterator[Difference]:
    for change in changes(one, other):
        yield Difference(path=list(change.path), a=change.before, b=change.after)


def _event(event: Event) -> Happened:
    return Happened(version=event.version, type=event.type, recorded_at=event.recorded_at)


def _began(divergence: Divergence) -> tuple[int, int]:
    """The earlier of its versions, then that of the first job."""
    versions = [event["version"] for event in (divergence["a"], divergence["b"]) if event]
    return min(versions), versions[0]
