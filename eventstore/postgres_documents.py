"""The JSON documents in which events and heads travel to the database's functions.

orjson builds them several times faster than the driver adapts single parameters. Payloads go in as the bytes they are:
the hash covers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import orjson
from psycopg.types.json import Json

from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.events import NewEvent
from steplog.eventstore.store import Append, Claim, Head, HeadColumns, NewJob

COLUMNS = tuple(field.name for field in fields(HeadColumns))
_values = attrgetter(*COLUMNS)


def batch_documents(batch: Sequence[Append]) -> list[Json]:
    """What the database's `append` takes: the items, and all their events, which it then parses only once."""
    items = [_item(place, item) for place, item in enumerate(batch)]
    events = [{"place": place, **event} for place, item in enumerate(batch) for event in _events(item.events)]
    return [_document(items), _document(events)]


def item_documents(item: Append) -> list[Any]:
    """What the database's `append_one` takes: the job, the item, and its events."""
    return [item.job_id, _document(_item(0, item)), _document(_events(item.events))]


def job_document(job: NewJob) -> Json:
    """What the database's `create_job` takes."""
    end = end_of(list(job.events), Position())
    head = _head(job.job_id, end, job.columns)
    if job.claim:
        head |= _owner(job.claim.epoch, job.claim.claim_id, job.claim.worker_id)
    else:
        head |= _owner(0, None, None)
    return _document({"head": head, "input_hash": job.input_hash, "events": _events(job.events)})


def head_document(
    head: Head, events: Sequence[NewEvent], columns: HeadColumns, claim: Claim | None, request_id: str | None
) -> Json:
    """What the database's `append_to_head` takes; without a claim the owner stays."""
    row = _head(head.job_id, end_of(list(events), head.position), columns)
    if claim:
        row |= _owner(claim.epoch, claim.claim_id, claim.worker_id)
    else:
        row |= _owner(head.epoch, head.claim_id, head.worker_id)
    return _document({"head": row, "events": _events(events), "request_id": request_id})


def _document(value: object) -> Json:
    return Json(value, dumps=_dumps)


def _dumps(value: object) -> bytes:
    return orjson.dumps(value)


def _item(place: int, item: Append) -> dict[str, Any]:
    return {
        "place": place,
        "job_id": item.job_id,
        "expected_version": item.expected.version,
        "expected_hash": item.expected.hash,
        "epoch": item.claim.epoch,
        "claim_id": item.claim.claim_id,
        "release": item.release,
        "head": _head(item.job_id, end_of(list(item.events), item.expected), item.columns),
        "event_ids": [event.event_id for event in item.events],
    }


def _head(job_id: str, end: Position, columns: HeadColumns) -> dict[str, Any]:
    row = dict(zip(COLUMNS, _values(columns), strict=True))
    row |= {"job_id": job_id, "version": end.version, "hash": end.hash, "recorded_at": end.recorded_at}
    return row


def _owner(epoch: int, claim_id: str | None, worker_id: str | None) -> dict[str, Any]:
    return {"epoch": epoch, "claim_id": claim_id, "worker_id": worker_id}


def _events(events: Sequence[NewEvent]) -> list[dict[str, Any]]:
    return [
        {
            "version": event.version,
            "event_id": event.event_id,
            "type": event.type,
            "schema_version": event.schema_version,
            "recorded_at": event.recorded_at,
            "data": orjson.Fragment(event.payload),
            "hash": event.hash,
        }
        for event in events
    ]
