"""The JSON documents in which events and heads travel to the database's functions.

orjson builds them several times faster than the driver adapts single parameters. Payloads go in as the bytes they are:
the hash covers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from psycopg.types.json import Json

from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.events import NewEvent
from steplog.eventstore.store import Append, Claim, Head, HeadColumns, NewJob, SlotWanted


def batch_parameters(batch: Sequence[Append]) -> list[bytes]:
    """What the database's `append` takes, as text: a list of each value that is judged, the heads, all the events."""
    return [
        _list([item.job_id for item in batch]),
        _list([item.expected.version for item in batch]),
        _list([item.expected.hash for item in batch]),
        _list([item.claim.epoch for item in batch]),
        _list([item.claim.claim_id for item in batch]),
        _list([item.release for item in batch]),
        orjson.dumps([_head_after(item) for item in batch]),
        orjson.dumps(
            [{"place": place, **event} for place, item in enumerate(batch, 1) for event in _events(item.events)]
        ),
    ]


def item_parameters(item: Append) -> list[bytes]:
    """What the database's `append_one` takes, as text."""
    return [
        item.job_id.encode(),
        b"%d" % item.expected.version,
        item.expected.hash.encode(),
        b"%d" % item.claim.epoch,
        item.claim.claim_id.encode(),
        b"true" if item.release else b"false",
        orjson.dumps(_head_after(item)),
        orjson.dumps(_events(item.events)),
    ]


def job_document(job: NewJob) -> Json:
    """What the database's `create_job` takes."""
    return _document({"head": _new_head(job), "input_hash": job.input_hash, "events": _events(job.events)})


def job_documents(jobs: Sequence[NewJob]) -> list[Json]:
    """What the database's `create_jobs` takes."""
    heads = [{"input_hash": job.input_hash, **_new_head(job)} for job in jobs]
    events = [{"job_id": job.job_id, **event} for job in jobs for event in _events(job.events)]
    return [_document(heads), _document(events)]


def _new_head(job: NewJob) -> dict[str, Any]:
    head = _head(job.job_id, end_of(job.events, Position()), job.columns)
    if job.claim:
        return head | _owner(job.claim.epoch, job.claim.claim_id, job.claim.worker_id)
    return head | _owner(job.epoch, None, None)


def head_document(
    head: Head, events: Sequence[NewEvent], columns: HeadColumns, claim: Claim | None, request_id: str | None
) -> Json:
    """What the database's `append_to_head` takes; without a claim the owner stays."""
    row = _head(head.job_id, end_of(events, head.position), columns)
    if claim:
        row |= _owner(claim.epoch, claim.claim_id, claim.worker_id)
    else:
        row |= _owner(head.epoch, head.claim_id, head.worker_id)
    return _document({"head": row, "events": _events(events), "request_id": request_id})


def claim_document(item: Append, slots: Sequence[SlotWanted]) -> dict[str, Any]:
    """What the database's `claim_jobs` takes of one job."""
    owner = _owner(item.claim.epoch, item.claim.claim_id, item.claim.worker_id)
    return {
        "expected_version": item.expected.version,
        "expected_hash": item.expected.hash,
        "head": _head_after(item) | owner,
        "events": _events(item.events),
        "slots": [{"name": slot.limit, "slots": slot.slots, "period_s": slot.period_s} for slot in slots],
    }


def _document(value: object) -> Json:
    return Json(value, dumps=_dumps)


def _dumps(value: object) -> bytes:
    return orjson.dumps(value)


def _list(values: Sequence[str | int]) -> bytes:
    """An array in PostgreSQL's notation, which is JSON's but for the brackets and for control characters in strings."""
    return b"{%b}" % orjson.dumps(values)[1:-1]


def _head_after(item: Append) -> dict[str, Any]:
    return _head(item.job_id, end_of(item.events, item.expected), item.columns)


def _head(job_id: str, end: Position, columns: HeadColumns) -> dict[str, Any]:
    return {
        **columns._asdict(),
        "job_id": job_id,
        "version": end.version,
        "hash": end.hash,
        "recorded_at": end.recorded_at,
    }


def _owner(epoch: int, claim_id: str | None, worker_id: str | None) -> dict[str, Any]:
    return {"epoch": epoch, "claim_id": claim_id, "worker_id": worker_id or None}


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
