"""`examine`: whether all that is stored of a job follows from its log, and its log from itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import LogError
from steplog.eventstore.events import Event
from steplog.eventstore.inspection import StoredState
from steplog.eventstore.rows import Row, read_rows
from steplog.eventstore.store import Head
from steplog.projections.evolve import fold
from steplog.projections.head import head_of
from steplog.projections.state import REDUCER_VERSION, State


@dataclass(frozen=True, slots=True)
class Finding:
    """Something stored that is not what it should be."""

    job_id: str | None
    """None where it belongs to no job."""
    version: int
    """The event that is wrong, or that the wrong thing stands for; 0 where no event does."""
    why: str
    repairable: bool = False
    """Whether only the head's columns are wrong, which the log can give anew."""

    def __str__(self) -> str:
        return f"job {self.job_id}, version {self.version}: {self.why}" if self.job_id else self.why


def examine(head: Head, rows: Iterable[Row], states: Iterable[StoredState]) -> Iterator[Finding]:
    """What is wrong with a job: its rows up to its head (one after the other, so of any number), its stored states by
    version, and the head. After damage in the log nothing further is said: all that follows rests on it.
    """
    walk = _Walk(head.job_id, rows)
    try:
        for stored in states:
            if stored.position.version > head.version:
                why = f"a state is stored there, and the log ends at version {head.version}"
                yield Finding(head.job_id, stored.position.version, why)
                continue
            walk.go_on(stored.position.version)
            yield from _differences_of_state(stored, walk)
        walk.go_on(head.version)
        yield from differences_of_head(head, walk.position, walk.state)
        walk.go_on(head.version + 1)
    except LogError as error:
        yield Finding(head.job_id, error.version, error.why)
        return
    if walk.position.version > head.version:
        yield Finding(head.job_id, walk.position.version, f"behind the head, which is at version {head.version}")


def differences_of_head(head: Head, end: Position, state: State | None) -> Iterator[Finding]:
    """Where the head is not what the log comes to: its end, and what lists filter on."""
    if end.version < head.version or state is None:
        why = f"missing: the log ends at version {end.version} of {head.version}"
        yield Finding(head.job_id, end.version + 1, why)
        return
    for name, known, value in (("hash", head.hash, end.hash), ("recorded_at", head.recorded_at, end.recorded_at)):
        if known != value:
            yield Finding(head.job_id, head.version, f"the head's {name} is {known!r} (the log's {value!r})")
    stored, folded = head.columns._asdict(), head_of(state)._asdict()
    for name in stored:
        if _canonical(stored[name]) != _canonical(folded[name]):
            why = f"the head's {name} is {stored[name]!r} (folded {folded[name]!r})"
            yield Finding(head.job_id, head.version, why, repairable=True)


def _differences_of_state(stored: StoredState, walk: _Walk) -> Iterator[Finding]:
    job_id, version = stored.job_id, stored.position.version
    if stored.position != walk.position:
        yield Finding(job_id, version, "the state stored there is that of another log")
    elif stored.reducer_version == REDUCER_VERSION and _canonical(stored.state) != _canonical(walk.state):
        yield Finding(job_id, version, "the state stored there is not what the log folds to")


class _Walk:
    """A fold that stops at versions."""

    def __init__(self, job_id: str, rows: Iterable[Row]) -> None:
        self.position = Position()
        self.state: State | None = None
        self._events = read_rows(job_id, rows, self.position)

    def go_on(self, version: int) -> None:
        """Fold up to there, or to the log's end. Raises LogError."""
        if version > self.position.version and (first := next(self._events, None)):
            self._go_to(first)
            self.state = fold(self._until(first, version), self.state)

    def _until(self, event: Event, version: int) -> Iterator[Event]:
        yield event
        while event.version < version and (following := next(self._events, None)):
            self._go_to(event := following)
            yield event

    def _go_to(self, event: Event) -> None:
        self.position = Position(event.version, event.hash, event.recorded_at)


def _canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=repr)
