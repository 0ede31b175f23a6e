"""What every store does alike with one job's rows: judge an owner's append, and read up to a known end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.eventstore.rows import Row, read_rows
from steplog.eventstore.store import Append, Code, Head


class Mark(NamedTuple):
    """What tells a stored event from another one at its version."""

    event_id: str
    hash: str


class LogEnd(Protocol):
    """What of a head judges an append: where the log ends and who owns it."""

    @property
    def version(self) -> int: ...
    @property
    def hash(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def claim_id(self) -> str | None: ...


def judge(item: Append, head: LogEnd, marks: Callable[[], Mapping[int, Mark]]) -> Code:
    """What an owner's append to the job with this locked head comes to.

    STORED with the head still at `item.expected` means: store it now; with the head beyond: it was stored before.
    `marks()` gives the stored events from `item.expected` on, as far as the item reaches, by version. It is asked only
    where the log goes beyond `item.expected`.
    """
    expected = item.expected
    at_expected: str | None = head.hash
    if head.version > expected.version:
        stored = marks()
        if item.events and all(_is_stored(event.version, event.event_id, stored) for event in item.events):
            return Code.STORED
        at_expected = stored[expected.version].hash if expected.version in stored else None
    if head.version < expected.version or at_expected != expected.hash:
        return Code.REGRESSED
    if (head.epoch, head.claim_id) != (item.claim.epoch, item.claim.claim_id):
        return Code.FENCED
    return Code.STORED if head.version == expected.version else Code.CONFLICT


def read_to(job_id: str, rows: Iterable[Row], after: Position, version: int, hash: str | None) -> Iterator[Event]:
    """Checked events behind `after`, which must end at that version, and with that hash if one is known.

    Raises DamagedLog, also where the log ends early, before an event is handed out that is not what it should be.
    """
    last: Event | None = None
    for event in read_rows(job_id, rows, after):
        if event.version >= version:
            _check_end(job_id, position_of(event), version, hash)
        last = event
        yield event
    end = position_of(last) if last else after
    if end.version < version:
        raise DamagedLog(job_id, end.version + 1, f"missing: the log ends at version {end.version} of {version}")
    _check_end(job_id, end, version, hash)


def position_of(event: Event) -> Position:
    """The end of a log whose last event this is."""
    return Position(event.version, event.hash, event.recorded_at)


def tail_of(head: Head, rows: Iterable[Row], known: Position) -> list[Event]:
    """Everything in the log behind `known`, up to its locked head."""
    return list(read_to(head.job_id, rows, known, head.version, head.hash))


def _is_stored(version: int, event_id: str, stored: Mapping[int, Mark]) -> bool:
    return version in stored and stored[version].event_id == event_id


def _check_end(job_id: str, end: Position, version: int, hash: str | None) -> None:
    if hash is not None and (end.version, end.hash) != (version, hash):
        raise DamagedLog(job_id, end.version, f"the log has hash {end.hash[:12]}… (expected {hash[:12]}… at {version})")
