"""Folding a job's history anew, one event at a time, and comparing what it comes to with what the store shows."""

from __future__ import annotations

from collections.abc import Iterator

from steplog.engine.errors import ReplayMismatch
from steplog.eventstore.events import Event
from steplog.eventstore.store import Head, Store
from steplog.projections.evolve import evolve
from steplog.projections.head import head_of
from steplog.projections.state import State


def replay(store: Store, job_id: str, until: int | None = None) -> Iterator[tuple[Event, State]]:
    """Each event from the first on, with the state it leads to. Raises JobNotFound, LogError."""
    state: State | None = None
    for event in store.read(job_id, 0, until):
        state = evolve(state, event)
        yield event, state


def refuse_mismatch(head: Head, last: Event, state: State) -> None:
    """Raise ReplayMismatch unless the head is what the log folds to."""
    stored, folded = head.columns._asdict(), head_of(state)._asdict()
    found = [f"{name} is {stored[name]!r}, folded {folded[name]!r}" for name in stored if stored[name] != folded[name]]
    found += [
        f"{name} is {known!r}, folded {value!r}"
        for name, known, value in (
            ("version", head.version, last.version),
            ("hash", head.hash, last.hash),
            ("recorded_at", head.recorded_at, last.recorded_at),
        )
        if known != value
    ]
    if found:
        raise ReplayMismatch(head.job_id, found)
