"""Reading a job: its state now or at a version, from a stored state and the events after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import JobNotFound
from steplog.eventstore.events import Event
from steplog.eventstore.store import Store, StoredState
from steplog.eventstore.stream import position_of as position_of
from steplog.projections.evolve import as_state, fold
from steplog.projections.state import REDUCER_VERSION, State


@dataclass(frozen=True, slots=True)
class Loaded:
    """A state and where in the log it stands."""

    state: State
    position: Position
    stored_at: int = 0
    """The version of the stored state it was folded from, 0 if there was none."""


def load(store: Store, job_id: str, until: int | None = None) -> Loaded:
    """The job as of `until` or of now.

    Raises JobNotFound, and DamagedLog or UnknownEvent by job and version.
    """
    stored, events = store.open_job(job_id, REDUCER_VERSION, until)
    before = stored.position if stored else Position()
    tail = _Noted(events, before)
    try:
        state = fold(tail, as_state(stored.state) if stored else None)
    except JobNotFound:
        raise JobNotFound(job_id) from None
    return Loaded(state, tail.end, before.version)


class _Noted:
    """Events handed on one by one, however many, and where they end."""

    def __init__(self, events: Iterator[Event], before: Position) -> None:
        self._events = events
        self._before = before
        self._last: Event | None = None

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            self._last = event
            yield event

    @property
    def end(self) -> Position:
        return position_of(self._last) if self._last else self._before


def to_store(loaded: Loaded) -> StoredState:
    """The state as the store keeps it."""
    return StoredState(loaded.state["job_id"], loaded.position, REDUCER_VERSION, dict(loaded.state))
