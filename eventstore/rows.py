"""From a stored row to an event: every check that a row must pass before anybody folds it.

All stores read through here, so damaged, moved, unknown and newer rows are refused alike, by job and version.
The structural check is derived from the catalogue; pydantic's own validation of an event costs more than fetching it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from steplog.eventstore.chain import Position, link
from steplog.eventstore.codec import decode
from steplog.eventstore.errors import DamagedLog, UnknownEvent
from steplog.eventstore.events import CATALOGUE, Event, EventData, JobForked
from steplog.eventstore.upcasters import upcast

FORK = JobForked.type()


class Row(NamedTuple):
    """An event as a store holds it: the data still bytes (or their text), nothing checked."""

    version: int
    event_id: str
    type: str
    schema_version: int
    recorded_at: str
    payload: bytes | str
    hash: str


class _Shape(NamedTuple):
    required: frozenset[str]
    kinds: dict[str, tuple[type, ...] | None]


def read_rows(job_id: str, rows: Iterable[Row], after: Position) -> Iterator[Event]:
    """Events of the rows that follow `after`, each checked against the chain before it is handed out.

    Raises DamagedLog at a gap, a broken chain or malformed data, UnknownEvent at a type or version not known here.
    """
    version, before = after.version, after.hash
    for row in rows:
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


def _parent_hash(job_id: str, payload: bytes) -> str:
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


_SHAPES = {name: _shape(model) for name, model in CATALOGUE.items()}
