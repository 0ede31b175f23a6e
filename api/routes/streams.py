"""Server-sent events: a job's history as it goes on, and what happens in all jobs.

A job's stream numbers its messages with the version: `Last-Event-ID`, or `after`, goes on behind it. The stream of all
jobs carries the feed's cursor behind each batch and not what events say: whoever wants that reads the job.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from steplog.api.answers import ServiceOf, problems
from steplog.api.messages import PAGE_EVENTS, message_of
from steplog.api.problems import invalid
from steplog.api.service import Service
from steplog.api.settings import API
from steplog.eventstore.feed import FeedEntry

router = APIRouter(prefix=API, tags=["streams"])

_RETRY_MS = 2000
_DROPPED = message_of("dropped", {"reason": "too far behind, or this server ends: come again with Last-Event-ID"})
_STREAM: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {
        200: {"description": "messages as they come", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **problems(404, 429),
    },
}
LastEventId = Annotated[str | None, Header(max_length=400)]


@router.get("/jobs/{job_id}/events/stream", **_STREAM)
async def follow_job(
    service: ServiceOf,
    job_id: str,
    last_event_id: LastEventId = None,
    after: Annotated[int | None, Query(ge=0, description="As Last-Event-ID; from now on unless given.")] = None,
) -> Response:
    """The job's events behind a version, and then each as it is stored."""
    head = await run_in_threadpool(service.store.head, job_id)
    known = _version(last_event_id) if last_event_id is not None else after
    messages = _of_job(service, job_id, head.version if known is None else known)
    return await _streaming(messages)


@router.get("/events/stream", **_STREAM)
async def follow_all(
    service: ServiceOf,
    last_event_id: LastEventId = None,
    after: Annotated[
        str | None, Query(max_length=400, description="As Last-Event-ID; from now on unless given.")
    ] = None,
) -> Response:
    """What is stored in all jobs: job, version and type of each event."""
    known = last_event_id or after
    if known:
        await run_in_threadpool(service.store.feed, known, 1)  # a cursor that is none is refused before the stream
    return await _streaming(_of_all(service, known))


async def _streaming(messages: AsyncIterator[bytes]) -> Response:
    """The stream, once its beginning is there: what is wrong by then is still answered as a problem."""
    first = await anext(messages)

    async def all_of_them() -> AsyncIterator[bytes]:
        try:
            yield first
            async for message in messages:
                yield message
        finally:
            await messages.aclose()  # type: ignore[attr-defined]  # a generator

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(all_of_them(), headers=headers, media_type="text/event-stream")


async def _of_job(service: Service, job_id: str, version: int) -> AsyncIterator[bytes]:
    async with service.changes.listening(job_id) as listener:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        head = await run_in_threadpool(service.store.head, job_id)
        newest = head.version
        while True:
            while version < newest:
                page = await service.messages.behind(job_id, version, newest)
                for message in page:
                    yield message.text
                version = page[-1].version if page else newest
            batch = await listener.next(service.settings.keep_alive_s)
            if batch is not None:
                newest = max([newest, *(entry.version for entry in batch.entries)])
            elif listener.is_dropped:
                yield _DROPPED
                return
            else:
                yield b": still here\n\n"


async def _of_all(service: Service, cursor: str | None) -> AsyncIterator[bytes]:
    async with service.changes.listening() as listener:
        yield f"retry: {_RETRY_MS}\n\n".encode()
        while cursor is not None:
            page = await run_in_threadpool(service.store.feed, cursor, PAGE_EVENTS)
            for message in _batch(page.entries, page.cursor):
                yield message
            cursor = page.cursor if page.entries else None
        while True:
            batch = await listener.next(service.settings.keep_alive_s)
            if batch is not None:
                for message in _batch(batch.entries, batch.cursor):
                    yield message
            elif listener.is_dropped:
                yield _DROPPED
                return
            else:
                yield b": still here\n\n"


def _batch(entries: Iterable[FeedEntry], cursor: str) -> Iterable[bytes]:
    """The last message of a batch carries its cursor: whoever comes again may get the others twice, and loses none."""
    listed = list(entries)
    for entry in listed:
        document = {
            "job_id": entry.job_id,
            "version": entry.version,
            "type": entry.type,
            "recorded_at": entry.recorded_at,
        }
        yield message_of(entry.type, document, cursor if entry is listed[-1] else None)


def _version(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise invalid(f"{text[:60]!r} is no version", parameter="Last-Event-ID")
    return int(text)
