"""The per-job hash chain: each event's hash covers the one before it, its envelope and its data bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from steplog.eventstore.clock import Clock
from steplog.eventstore.codec import encode, encode_around
from steplog.eventstore.events import EventData, NewEvent

GENESIS = "0" * 64
"""What stands before the first event of a chain."""


class Position(NamedTuple):
    """The end of a job's log as somebody knows it; the next event goes right behind it."""

    version: int = 0
    hash: str = GENESIS
    recorded_at: str = ""


def link(
    before: str,
    job_id: str,
    version: int,
    event_id: str,
    type: str,
    schema_version: int,
    recorded_at: str,
    payload: bytes,
) -> str:
    """The hash (64 hex digits) of an event behind the one with hash `before`."""
    envelope = f"{before}\n{job_id}\n{version}\n{event_id}\n{type}\n{schema_version}\n{recorded_at}\n"
    return sha256(envelope.encode() + payload).hexdigest()


def seal(
    job_id: str,
    after: Position,
    data: Iterable[EventData],
    at: str,
    clock: Clock,
    *,
    known: Mapping[str, bytes] | None = None,
) -> list[NewEvent]:
    """Events behind `after`, recorded at `at` or at their predecessor's instant if that is later.

    `known` are values of the first event whose canonical bytes were made before.
    Raises PayloadRefused before anything is written.
    """
    sealed = []
    version, before, recorded_at = after.version, after.hash, max(at, after.recorded_at)
    for fact in data:
        version += 1
        event_id, type = clock.new_id(), fact.type()
        payload = encode_around(known, fact.as_data(), path=type) if known else encode(fact.as_data(), path=type)
        known = None
        before = link(before, job_id, version, event_id, type, fact.schema_version, recorded_at, payload)
        sealed.append(NewEvent(job_id, version, event_id, type, fact.schema_version, recorded_at, payload, before))
    return sealed


def end_of(events: Sequence[NewEvent], before: Position) -> Position:
    """Where the log ends once `events` are stored behind `before`."""
    return Position(events[-1].version, events[-1].hash, events[-1].recorded_at) if events else before
