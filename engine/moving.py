"""Taking jobs from one store to another: as JSON lines, whole or not at all, and as often as one likes.

A job is one line that says where its log ends, then a line for each event. Both ends check the hash chain. What is
derived (head, key, epoch) is made anew from the log; owners, stored states and request ids stay behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, tee
from typing import Any, Literal

import orjson

from steplog.engine.errors import ImportConflict, ImportRefused
from steplog.engine.history import position_of
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog, JobNotFound
from steplog.eventstore.events import Event, NewEvent, SecretsErased
from steplog.eventstore.rows import Row, read_rows
from steplog.eventstore.store import Head, NewJob, Proposal, Store
from steplog.projections.evolve import fold
from steplog.projections.head import head_of

_SEALED_BY = re.compile(rb'"\$sealed":"([0-9a-f-]{36}):')

Outcome = Literal["imported", "continued", "there already"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one job; `events` is how many were stored."""

    job_id: str
    outcome: Outcome
    events: int


# --- out -------------------------------------------------------------------------------------------------------------


def export(store: Store, job_id: str, *, with_keys: bool = False) -> Iterator[bytes]:
    """The job's lines, up to where its log ends now. Raises JobNotFound, LogError: the lines until then are no job.

    What is sealed stays so. `with_keys` gives the keys along that open it, wrapped as they are: from then on it is not
    in this store's hands alone to erase it.
    """
    head = store.head(job_id)
    key = store.inspection.key(head.columns.workflow, head.columns.key) if head.columns.key is not None else None
    first = {"job_id": job_id, "version": head.version, "hash": head.hash, "input_hash": key.input_hash if key else ""}
    if with_keys:
        first["data_keys"] = _data_keys(store, job_id, head.version)
    yield orjson.dumps(first, option=orjson.OPT_APPEND_NEWLINE)
    checked, written = tee(store.inspection.rows(job_id, 0, head.version))
    end = Position()
    for event, row in zip(read_rows(job_id, checked, end), written, strict=False):
        end = position_of(event)
        yield _line(row)
    if (end.version, end.hash) != (head.version, head.hash):
        raise DamagedLog(job_id, end.version, f"the log ends there, the head is at version {head.version}")


def _data_keys(store: Store, job_id: str, version: int) -> dict[str, str]:
    """The wrapped keys of the job and of those whose values it inherited; not of what was erased."""
    named = {
        sealed.decode()
        for row in store.inspection.rows(job_id, 0, version)
        for sealed in _SEALED_BY.findall(row.payload if isinstance(row.payload, bytes) else row.payload.encode())
    }
    found = (store.data_keys.find(each) for each in sorted({job_id, *named}))
    return {key.job_id: key.wrapped for key in found if key is not None and key.wrapped is not None}


def _line(row: Row) -> bytes:
    payload = row.payload if isinstance(row.payload, bytes) else row.payload.encode()
    return orjson.dumps({**row._asdict(), "payload": orjson.Fragment(payload)}, option=orjson.OPT_APPEND_NEWLINE)


# --- in --------------------------------------------------------------------------------------------------------------


def import_jobs(store: Store, lines: Iterable[bytes]) -> Iterator[Imported]:
    """Store each job of the lines that is not there, or is there in part; one job at a time is in memory.

    Raises ImportRefused and LogError for what is no export, ImportConflict and KeyConflict where the store has
    something else: jobs before it are stored, nothing of that one is.
    """
    counted = enumerate(lines, 1)
    for number, line in counted:
        first = _Heading.of(line, number)
        rows = [_row(line, number) for number, line in islice(counted, first.version)]
        yield _imported(store, first, rows)


def ends_of(lines: Iterable[bytes]) -> Iterator[tuple[str, Position]]:
    """Each job of an export and where its log ends, once all of it was read and its chain checked.

    Raises ImportRefused, LogError.
    """
    counted = enumerate(lines, 1)
    for number, line in counted:
        first = _Heading.of(line, number)
        rows = [_row(line, number) for number, line in islice(counted, first.version)]
        yield first.job_id, _end_of(first, list(read_rows(first.job_id, rows, Position())))


@dataclass(frozen=True, slots=True)
class _Heading:
    job_id: str
    version: int
    hash: str
    input_hash: str
    data_keys: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(line: bytes, number: int) -> _Heading:
        found = _document(line, number)
        try:
            keys = found.get("data_keys", {})
            made = _Heading(found["job_id"], found["version"], found["hash"], found["input_hash"], keys)
        except KeyError as error:
            raise ImportRefused(number, f"no job begins there: {error} is missing") from None
        texts = (made.job_id, made.hash, *made.data_keys.keys(), *made.data_keys.values())
        if type(made.version) is not int or not all(type(text) is str for text in texts):
            raise ImportRefused(number, "no job begins there")
        return made


def _row(line: bytes, number: int) -> Row:
    found = _document(line, number)
    if found.keys() != set(Row._fields):
        raise ImportRefused(number, f"no event: it has {', '.join(sorted(found)) or 'nothing'}")
    # Canonical bytes again; were they others, the hash would not fit them.
    return Row(**{**found, "payload": orjson.dumps(found["payload"], option=orjson.OPT_SORT_KEYS)})


def _document(line: bytes, number: int) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except ValueError as error:
        raise ImportRefused(number, f"no JSON: {error}") from None
    if type(found) is not dict:
        raise ImportRefused(number, "no object")
    return found


def _imported(store: Store, first: _Heading, rows: Sequence[Row]) -> Imported:
    job_id = first.job_id
    events = list(read_rows(job_id, rows, Position()))
    end = _end_of(first, events)
    new = [_new(job_id, row) for row in rows]
    try:
        head = store.head(job_id)
    except JobNotFound:
        return _create(store, first, new, events)
    _refuse_difference(store, head, events)
    _add_keys(store, first)
    if head.version >= end.version:
        return Imported(job_id, "there already", 0)
    return _continue(store, head.position, new, events)


def _end_of(first: _Heading, events: Sequence[Event]) -> Position:
    end = position_of(events[-1]) if events else Position()
    if (end.version, end.hash) != (first.version, first.hash):
        raise DamagedLog(first.job_id, end.version, f"the export ends there (expected version {first.version})")
    return end


def _create(store: Store, first: _Heading, new: Sequence[NewEvent], events: Sequence[Event]) -> Imported:
    state = fold(events)
    job = NewJob(first.job_id, new, head_of(state), first.input_hash, epoch=state["epoch"])
    holder = store.create(job)
    if holder != first.job_id:
        raise ImportConflict(first.job_id, 1, f"its key {job.columns.key!r} belongs to job {holder}")
    _add_keys(store, first)
    return Imported(first.job_id, "imported", len(new))


def _add_keys(store: Store, first: _Heading) -> None:
    """Those that are not there, nor were destroyed here."""
    for job_id, wrapped in first.data_keys.items():
        store.data_keys.add(job_id, wrapped)


def _continue(store: Store, known: Position, new: Sequence[NewEvent], events: Sequence[Event]) -> Imported:
    """Append what the store lacks, under the head's lock, unless somebody runs the job there."""
    job_id, state = events[-1].job_id, fold(events)

    def rule(head: Head, tail: Sequence[Event]) -> Proposal:
        if tail or head.worker_id is not None:
            raise ImportConflict(job_id, head.version + 1, "the job goes on here")
        erases = any(each.type == SecretsErased.type() for each in new[known.version :])
        return Proposal(new[known.version :], head_of(state), state["epoch"], erases=erases)

    store.append_locked(job_id, known, rule)
    return Imported(job_id, "continued", len(new) - known.version)


def _refuse_difference(store: Store, head: Head, events: Sequence[Event]) -> None:
    """Raise ImportConflict at the first version that both have and that is not the same. Raises LogError."""
    for mine, theirs in zip(store.read(head.job_id, 0, min(head.version, len(events))), events, strict=False):
        if mine.hash != theirs.hash:
            raise ImportConflict(head.job_id, mine.version, f"{mine.type} is stored there (the export: {theirs.type})")


def _new(job_id: str, row: Row) -> NewEvent:
    assert isinstance(row.payload, bytes)
    return NewEvent(
        job_id, row.version, row.event_id, row.type, row.schema_version, row.recorded_at, row.payload, row.hash
    )
