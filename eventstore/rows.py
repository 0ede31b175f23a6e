"""From a stored row to an event: every check that a row must pass before anybody folds it.

All stores read through here, so damaged, moved, unknown and newer rows are refused alike, by job and version.
The structural check is derived from the catalogue; pydantic's own validation of an event costs more than fetching it.

Rows are checked many at a time, column by column, in loops that the interpreter does not run itself. A row hashes on
from the stored hash of the one before, so that all being right one by one is the chain being right. What does not pass
whole is gone through again row by row, which says what is wrong with which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import chain, islice, repeat
from operator import add, methodcaller
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

import orjson

from steplog.eventstore.chain import Position, link
from steplog.eventstore.codec import decode
from steplog.eventstore.errors import DamagedLog, LogError, UnknownEvent
from steplog.eventstore.events import CATALOGUE, Event, EventData, JobForked
from steplog.eventstore.upcasters import upcast

FORK = JobForked.type()
CHUNK_ROWS = 200
"""How many rows are checked at once."""


class Row(NamedTuple):
    """An event as a store holds it: the data still bytes (or their text), nothing checked."""

    version: int
    event_id: str
    type: str
    schema_version: int
    recorded_at: str
    payload: bytes | str
    hash: str


_hexdigest = methodcaller("hexdigest")
_event: Callable[[tuple[Any, ...]], Event] = partial(tuple.__new__, Event)
as_row: Callable[[Sequence[Any]], Row] = partial(tuple.__new__, Row)
"""What `_make` of the class gives, without the interpreter."""


StoredRow: TypeAlias = Sequence[Any]
"""A Row, or its values as a driver gives them: to make a Row of each takes a tenth longer."""


class _Shape(NamedTuple):
    required: frozenset[str]
    kinds: dict[str, tuple[type, ...] | None]


def read_rows(job_id: str, rows: Iterable[StoredRow], after: Position) -> Iterator[Event]:
    """Events of the rows that follow `after`, each checked against the chain before it is handed out.

    Raises DamagedLog at a gap, a broken chain or malformed data, UnknownEvent at a type or version not known here.
    """
    return chain.from_iterable(read_chunks(job_id, rows, after))


def read_chunks(job_id: str, rows: Iterable[StoredRow], after: Position) -> Iterator[Sequence[Event]]:
    """The same, as many at a time as are checked together; those before one that cannot be read come by themselves."""
    end = after
    for chunk in _chunks(rows):
        events = _all_at_once(job_id, chunk, end)
        if events is None:
            yield from ([event] for event in _one_by_one(job_id, chunk, end))
        else:
            yield events
        last = as_row(chunk[-1])
        end = Position(last.version, last.hash, last.recorded_at)


def _chunks(rows: Iterable[StoredRow]) -> Iterator[list[StoredRow]]:
    """The rows, many at a time; where they cannot be read on, those before come first."""
    left = iter(rows)
    while True:
        chunk: list[StoredRow] = []
        try:
            chunk.extend(islice(left, CHUNK_ROWS))
        except Exception:
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        yield chunk


def _all_at_once(job_id: str, rows: Sequence[StoredRow], after: Position) -> list[Event] | None:
    """The events of the rows, or None where not every one of them passes every check."""
    columns: tuple[Any, ...] = tuple(zip(*rows, strict=True))
    versions, ids, types, schemas, instants, payloads, hashes = columns
    first = after.version + 1
    if versions != tuple(range(first, first + len(rows))):
        return None
    try:
        before = _parent_hash(job_id, payloads[0]) if first == 1 and types[0] == FORK else after.hash
        of_them = (before, *hashes[:-1]), repeat(job_id), map(str, versions), ids, types, map(str, schemas), instants
        if type(payloads[0]) is bytes:
            envelopes = map(str.encode, map("\n".join, zip(*of_them, repeat(""), strict=False)))
            linked: Iterable[bytes] = map(add, envelopes, payloads)
        else:
            linked = map(str.encode, map("\n".join, zip(*of_them, payloads, strict=False)))
        if tuple(map(_hexdigest, map(sha256, linked))) != hashes:
            return None
        data = list(map(orjson.loads, payloads))
        signatures = {
            (type_of, schema, *each, *map(type, each.values()))
            for type_of, schema, each in zip(types, schemas, data, strict=True)
        }
        if not signatures <= _SIGNATURES and not all(map(_is_sound, types, schemas, data)):
            return None
    except (LogError, AttributeError, TypeError, ValueError):
        return None
    whole = zip(repeat(job_id), versions, ids, types, schemas, instants, data, hashes, strict=False)
    return list(map(_event, whole))


def _one_by_one(job_id: str, rows: Iterable[StoredRow], after: Position) -> Iterator[Event]:
    version, before = after.version, after.hash
    for row in map(as_row, rows):
        version += 1
        if row.version != version:
            raise DamagedLog(job_id, version, f"missing: the log goes on at version {row.version}")
        payload = row.payload if isinstance(row.payload, bytes) else row.payload.encode()
        if version == 1 and row.type == FORK:
            before = _parent_hash(job_id, payload)
        expected = link(before, job_id, version, row.event_id, row.type, row.schema_version, row.recorded_at, payload)
        if row.hash != expected:
            raise DamagedLog(job_id, version, f"hash {row.hash[:12]}… does not follow from the log ({expected[:12]}…)")
        before = expected
        yield _read(job_id, row, payload)


def _parent_hash(job_id: str, payload: bytes | str) -> str:
    """What a fork's chain begins with: its parent's hash, which its own first hash covers too."""
    try:
        return str(decode(payload)["parent_hash"])
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedLog(job_id, 1, f"{FORK} does not say which hash it was forked from: {error!r}") from error


def _read(job_id: str, row: Row, payload: bytes) -> Event:
    model = CATALOGUE.get(row.type)
    if model is None:
        raise UnknownEvent(job_id, row.version, f"unknown event type {row.type!r}: a newer steplog may know it")
    if row.schema_version > model.schema_version:
        raise UnknownEvent(
            job_id, row.version, f"{row.type} has schema version {row.schema_version} (known: {model.schema_version})"
        )
    try:
        data = decode(payload)
    except ValueError as error:
        raise DamagedLog(job_id, row.version, f"{row.type} is no JSON: {error}") from error
    if row.schema_version < model.schema_version:
        data = upcast(row.type, row.schema_version, data)
    problem = _problem(_SHAPES[row.type], data)
    if problem:
        raise DamagedLog(job_id, row.version, f"{row.type} {problem}")
    return Event(job_id, row.version, row.event_id, row.type, row.schema_version, row.recorded_at, data, row.hash)


def _is_sound(type_of: str, schema_version: int, data: Any) -> bool:
    """Whether it is of the newest schema version and passes the structural check, which is remembered."""
    model = CATALOGUE.get(type_of)
    if model is None or schema_version != model.schema_version or _problem(_SHAPES[type_of], data):
        return False
    _SIGNATURES.add((type_of, schema_version, *data, *map(type, data.values())))
    return True


def _problem(shape: _Shape, data: Any) -> str | None:
    if type(data) is not dict:
        return "is no object"
    if not shape.required <= data.keys():
        return f"lacks {', '.join(sorted(shape.required - data.keys()))}"
    kinds = shape.kinds
    for name, value in data.items():
        if name not in kinds:
            return f"has the unknown field {name!r}"
        allowed = kinds[name]
        if allowed is not None and type(value) not in allowed:
            return f"has a {type(value).__name__} in {name!r}"
    return None


def _shape(model: type[EventData]) -> _Shape:
    fields = model.model_fields
    return _Shape(
        frozenset(name for name, field in fields.items() if field.is_required()),
        {name: _kinds(field.annotation) for name, field in fields.items()},
    )


def _kinds(annotation: Any) -> tuple[type, ...] | None:
    """The exact JSON types a field may have, or None where any will do."""
    if annotation is Any:
        return None
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin is Literal:
        return (str,)
    if origin in (Union, UnionType):
        return tuple(kind for part in get_args(annotation) for kind in _kinds(part) or ())
    if annotation is float:
        return (float, int)
    return (NoneType,) if annotation is NoneType else (origin or annotation,)


_SIGNATURES: set[tuple[object, ...]] = set()
"""Which fields of which JSON types, in their order, have passed the structural check of the newest schema version:
there are no more of them than the catalogue has ways to leave fields out."""

_SHAPES = {name: _shape(model) for name, model in CATALOGUE.items()}
