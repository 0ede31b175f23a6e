"""What every store does alike with one job's rows: judge an owner's append, and read up to a known end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from threading import Event as Signal
from typing import Any, NamedTuple, Protocol, TypeVar

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, JobPruned, LogError
from steplog.eventstore.events import Event
from steplog.eventstore.rows import StoredRow, read_chunks
from steplog.eventstore.store import Append, BatchCount, Code, Head

T = TypeVar("T")


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


def read_to(
    job_id: str, rows: Iterable[StoredRow], after: Position, version: int, hash: str | None
) -> Iterator[Sequence[Event]]:
    """Checked events behind `after`, many at a time, which must end at that version, with that hash if it is known.

    Raises DamagedLog, also where the log ends early, before an event is handed out that is not what it should be.
    """
    end = after
    for events in read_chunks(job_id, rows, after):
        end = position_of(events[-1])
        if end.version >= version and not _ends_at(end, version, hash):
            yield [event for event in events if event.version < version]
            break
        yield events
    if end.version < version:
        raise DamagedLog(job_id, end.version + 1, f"missing: the log ends at version {end.version} of {version}")
    if not _ends_at(end, version, hash):
        raise DamagedLog(
            job_id, end.version, f"the log has hash {end.hash[:12]}… (expected {(hash or '')[:12]}… at {version})"
        )


def unless_pruned(
    job_id: str, events: Iterable[Sequence[Event]], pruned: Callable[[], Position | None]
) -> Iterator[Event]:
    """The events one by one; where they are missing because they were pruned, JobPruned says so."""
    return chain.from_iterable(_unless_pruned(job_id, events, pruned))


def _unless_pruned(
    job_id: str, events: Iterable[Sequence[Event]], pruned: Callable[[], Position | None]
) -> Iterator[Sequence[Event]]:
    try:
        yield from events
    except DamagedLog as error:
        at = pruned()
        if at is None:
            raise
        raise JobPruned(job_id, at.version) from error


def fetched_ahead(pages: Iterator[T]) -> Iterator[T]:
    """The pages, of which the next one is fetched by a thread of its own while the caller works on one.

    The caller goes on once the thread runs, which else would wait for the interpreter until most of the page is done.
    """
    runs = Signal()

    def fetch() -> T | None:
        runs.set()
        return next(pages, None)

    def ask() -> Future[T | None]:
        runs.clear()
        coming = thread.submit(fetch)
        runs.wait()
        return coming

    with ThreadPoolExecutor(1, "steplog-pages") as thread:
        coming = ask()
        while (page := coming.result()) is not None:
            coming = ask()
            yield page


def position_of(event: Event) -> Position:
    """The end of a log whose last event this is."""
    return Position(event.version, event.hash, event.recorded_at)


def tail_of(head: Head, rows: Iterable[StoredRow], known: Position) -> list[Event]:
    """Everything in the log behind `known`, up to its locked head."""
    return [*chain.from_iterable(read_to(head.job_id, rows, known, head.version, head.hash))]


def judge_claim(item: Append, head: Head, marks: Callable[[], Mapping[int, Mark]]) -> Code:
    """What a claim of a job nobody owns comes to: STORED as `judge` says it."""
    expected = item.expected
    if head.version == expected.version and head.hash == expected.hash and head.worker_id is None:
        return Code.STORED
    stored = marks() if head.version > expected.version else {}
    if stored and all(_is_stored(event.version, event.event_id, stored) for event in item.events):
        return Code.STORED
    return Code.CONFLICT


def batch_counts(rows: Iterable[Sequence[Any]]) -> list[BatchCount]:
    """Rows of batch, when its first job with that status was created, status, and how many have it; newest first."""
    counted: dict[str, BatchCount] = {}
    for batch_id, created_at, status, jobs in rows:
        known = counted.setdefault(batch_id, BatchCount(batch_id, created_at, {}))
        statuses = {**known.statuses, status: known.statuses.get(status, 0) + jobs}
        counted[batch_id] = BatchCount(batch_id, min(created_at, known.created_at), statuses)
    return sorted(counted.values(), key=lambda batch: batch.batch_id, reverse=True)


def logs_of(heads: Sequence[Head], rows_of: Callable[[Head], Iterable[StoredRow]]) -> dict[str, list[Event] | LogError]:
    """The checked log of each head, from its rows, or why it cannot be read."""
    logs: dict[str, list[Event] | LogError] = {}
    for head in heads:
        try:
            logs[head.job_id] = tail_of(head, rows_of(head), Position())
        except LogError as error:
            logs[head.job_id] = error
    return logs


def _is_stored(version: int, event_id: str, stored: Mapping[int, Mark]) -> bool:
    return version in stored and stored[version].event_id == event_id


def _ends_at(end: Position, version: int, hash: str | None) -> bool:
    return hash is None or (end.version, end.hash) == (version, hash)
