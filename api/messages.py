"""The messages of jobs' streams: read and written once for everybody who stands at the same place of the same job."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, NamedTuple

import orjson
from starlette.concurrency import run_in_threadpool

from steplog.api.jobs import Jobs

PAGE_EVENTS = 200
PAGE_BYTES = 1 << 20
"""A page that has come to so much ends there, however few its events."""
KEPT_PAGES = 64
KEPT_BYTES = 16 << 20

_Place = tuple[str, int, int]


class Message(NamedTuple):
    """An event as a stream sends it."""

    version: int
    text: bytes


def message_of(kind: str, document: dict[str, Any], id: int | str | None = None) -> bytes:
    """One message; JSON holds no line end, so none can be smuggled in."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {kind}\ndata: ".encode() + orjson.dumps(document) + b"\n\n"


class Messages:
    """Pages of messages, kept for a while for those who come a little later."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._pages: OrderedDict[_Place, asyncio.Task[list[Message]]] = OrderedDict()
        self._bytes = 0

    async def behind(self, job_id: str, after: int, until: int) -> list[Message]:
        """The first messages behind a version, up to another. Raises StoreError, LogError."""
        place = (job_id, after, min(until, after + PAGE_EVENTS))
        reading = self._pages.get(place)
        if reading is None:
            reading = asyncio.create_task(run_in_threadpool(self._read, place))
            self._pages[place] = reading
            reading.add_done_callback(lambda done: self._keep(place, done))
        return await asyncio.shield(reading)

    def _read(self, place: _Place) -> list[Message]:
        job_id, after, until = place
        head = self._jobs.store.head(job_id)
        secrets, found, size = self._jobs.secrets_of(head), list[Message](), 0
        for event in self._jobs.store.read(job_id, after, until):
            (document,) = self._jobs.shown_events(head.columns.workflow, [event], secrets)
            found.append(Message(event.version, message_of(event.type, document, event.version)))
            size += len(found[-1].text)
            if size >= PAGE_BYTES:
                break
        return found

    def _keep(self, place: _Place, reading: asyncio.Task[list[Message]]) -> None:
        if reading.cancelled() or reading.exception() is not None:
            del self._pages[place]
            return
        self._bytes += _size(reading)
        while len(self._pages) > KEPT_PAGES or self._bytes > KEPT_BYTES:
            oldest, left = next(iter(self._pages.items()))
            if not left.done():
                return
            del self._pages[oldest]
            self._bytes -= _size(left)


def _size(reading: asyncio.Task[list[Message]]) -> int:
    return sum(len(message.text) for message in reading.result())
