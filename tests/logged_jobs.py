"""Jobs whose facts are given, in any store, event by event or in stretches: what projections are tested on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.events import CATALOGUE, Event, EventData
from steplog.eventstore.store import Head, NewJob, Proposal, Store
from steplog.projections.evolve import Evolution, evolve
from steplog.projections.head import head_of
from steplog.projections.state import State
from steplog.testing.clock import VirtualClock

_CLOCK = VirtualClock()
"""One for all jobs, so that each has an id of its own."""


@dataclass
class LoggedJob:
    """A job that is written from outside, as its facts come."""

    store: Store
    clock: Clock = field(default_factory=lambda: _CLOCK)
    job_id: str = ""
    position: Position = field(default_factory=Position)
    state: State | None = None

    def add(self, facts: Sequence[EventData]) -> None:
        """The next facts, in one append."""
        if not facts:
            return
        self.job_id = self.job_id or self.clock.new_id()
        events = seal(self.job_id, self.position, facts, self.clock.now(), self.clock)
        self.state = _after(self.state, self.job_id, facts, events[-1].recorded_at)
        columns = head_of(self.state)
        if self.position.version == 0:
            self.store.create(NewJob(self.job_id, events, columns, ""))
        else:

            def rule(head: Head, tail: object) -> Proposal:
                return Proposal(events, columns)

            self.store.append_locked(self.job_id, self.position, rule)
        self.position = end_of(events, self.position)


def facts_of(events: Iterable[Event]) -> list[EventData]:
    """What a log says, to be written again elsewhere."""
    return [CATALOGUE[event.type](**event.data) for event in events]


def _after(state: State | None, job_id: str, facts: Sequence[EventData], at: str) -> State:
    if state is None:
        first = facts[0]
        state = evolve(None, Event(job_id, 1, "", first.type(), first.schema_version, at, first.as_data(), ""))
        facts = facts[1:]
    evolution = Evolution(state)
    for fact in facts:
        evolution.foresee(fact, at)
    return evolution.state
