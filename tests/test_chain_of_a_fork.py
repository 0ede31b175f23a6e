"""A fork's chain begins with its parent's hash, and nobody can give it another parent unnoticed."""

from __future__ import annotations

import pytest
from log_builder import LogBuilder, changed

from steplog.eventstore.chain import Position, link
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.eventstore.rows import Row, read_rows
from steplog.testing.clock import VirtualClock

JOB = "01a20953-b51b-7c13-a017-4a772713b617"
PARENT = Position(27, "ab" * 32, "2026-11-23T12:00:00.000000Z")
OTHER = "cd" * 32


def rows(begins_with: str = PARENT.hash) -> list[Row]:
    build = LogBuilder(VirtualClock())
    sealed = build.seal(JOB, Position(0, begins_with), build.forked(PARENT, "parent"), changed(1))
    return [
        Row(new.version, new.event_id, new.type, new.schema_version, new.recorded_at, new.payload, new.hash)
        for new in sealed
    ]


def read(stored: list[Row]) -> list[Event]:
    return list(read_rows(JOB, stored, Position()))


def linked_anew(row: Row, before: str) -> Row:
    payload = row.payload if isinstance(row.payload, bytes) else row.payload.encode()
    return row._replace(
        hash=link(before, JOB, row.version, row.event_id, row.type, row.schema_version, row.recorded_at, payload)
    )


def with_parent(row: Row, parent_hash: str) -> Row:
    assert isinstance(row.payload, bytes)
    return row._replace(payload=row.payload.replace(PARENT.hash.encode(), parent_hash.encode()))


def test_a_fork_that_begins_with_its_parents_hash_is_read() -> None:
    assert [event.type for event in read(rows())] == ["JobForked", "ContextChanged"]


def test_a_fork_that_begins_as_if_it_had_no_parent_is_refused() -> None:
    with pytest.raises(DamagedLog, match="version 1: hash"):
        read(rows(begins_with=Position().hash))


def test_another_parent_does_not_fit_the_first_hash() -> None:
    first, second = rows()
    with pytest.raises(DamagedLog, match="version 1: hash"):
        read([with_parent(first, OTHER), second])


def test_another_parent_under_a_hash_made_anew_does_not_fit_the_second() -> None:
    first, second = rows()
    with pytest.raises(DamagedLog, match="version 2: hash"):
        read([linked_anew(with_parent(first, OTHER), OTHER), second])


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"null", b"{", b'{"parent_hash":1}'])
def test_a_fork_that_names_no_hash_is_refused(payload: bytes) -> None:
    first, second = rows()
    with pytest.raises(DamagedLog, match="version 1"):
        read([linked_anew(first._replace(payload=payload), PARENT.hash), second])


def test_only_the_first_event_of_a_log_can_begin_a_chain() -> None:
    created, forked = rows()[1], rows()[0]
    with pytest.raises(DamagedLog, match="version 2"):
        read(
            [
                linked_anew(created._replace(version=1), Position().hash),
                linked_anew(forked._replace(version=2), PARENT.hash),
            ]
        )
