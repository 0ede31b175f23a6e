"""What is stored in all jobs, as it comes: one reader of the feed per process, whatever the number of those who listen.

Nobody who listens slows an append or another listener: each has a bounded queue, and who falls too far behind is let
go and may resume from the version it saw last. While nobody listens nothing is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from steplog.api.problems import Problem
from steplog.eventstore.errors import FeedMoved, SteplogError
from steplog.eventstore.feed import FeedEntry, FeedPage
from steplog.eventstore.store import Store

POLL_S = 0.1
"""How often a store is asked that only a query makes tell."""
LOOK_S = 0.02
"""How often one is looked at whose file tells."""
BACK_OFF_S_MAX = 5.0
RATE_S = 10.0
"""Over how long the rate of events is told."""
RATE_BATCHES = 1000

_log = logging.getLogger("steplog.api")


class Batch(NamedTuple):
    """What came at once; the cursor is behind all of it."""

    entries: list[FeedEntry]
    cursor: str


class Listener:
    """Somebody who listens: to one job or to all."""

    def __init__(self, job_id: str | None, batches_max: int) -> None:
        self.job_id = job_id
        self._queue: asyncio.Queue[Batch] = asyncio.Queue(batches_max)
        self.is_dropped = False
        """Whether it fell too far behind."""

    def offer(self, batch: Batch) -> None:
        """Give it what came, unless it has too much already."""
        try:
            self._queue.put_nowait(batch)
        except asyncio.QueueFull:
            self.is_dropped = True

    async def next(self, timeout_s: float) -> Batch | None:
        """What came next; None where nothing did in that time, or nothing will any more."""
        if self.is_dropped and self._queue.empty():
            return None
        try:
            async with asyncio.timeout(timeout_s):  # wait_for would lose a cancellation that meets a batch
                return await self._queue.get()
        except TimeoutError:
            return None


class Changes:
    """The one reader of the feed, and those who listen to it."""

    def __init__(self, store: Store, *, listeners_max: int, batches_max: int) -> None:
        self._store = store
        self._listeners_max = listeners_max
        self._batches_max = batches_max
        self._of_job: dict[str | None, set[Listener]] = defaultdict(set)
        self._reader: asyncio.Task[None] | None = None
        self._started: asyncio.Future[str] | None = None
        self.polls = 0
        """How often the feed was asked."""
        self._heard: deque[tuple[float, int]] = deque(maxlen=RATE_BATCHES)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return sum(map(len, self._of_job.values()))

    @property
    def events_per_s(self) -> float | None:
        """How many events came, by the latest batches; None while nobody listens."""
        if self._reader is None:
            return None
        since = time.monotonic() - RATE_S
        return sum(count for at, count in self._heard if at >= since) / RATE_S

    @asynccontextmanager
    async def listening(self, job_id: str | None = None) -> AsyncIterator[Listener]:
        """Listen to a job, or to all: whatever is stored from now on is heard. Raises Problem where too many do."""
        if self.listeners >= self._listeners_max:
            raise Problem(
                429, "too-many-clients", f"{self.listeners} clients listen already", headers={"Retry-After": "5"}
            )
        listener = Listener(job_id, self._batches_max)
        self._of_job[job_id].add(listener)
        try:
            await self._reading()
            yield listener
        finally:
            self._of_job[job_id].discard(listener)
            if not self._of_job[job_id]:
                del self._of_job[job_id]
            if not self._of_job:
                self._stop()

    async def _reading(self) -> str:
        """Begin to read, if nobody does; return once the place is known from which on everything is heard."""
        if self._reader is None or self._reader.done():
            self._started = asyncio.get_running_loop().create_future()
            self._reader = asyncio.create_task(self._read(self._started), name="steplog feed")
        assert self._started is not None
        return await asyncio.shield(self._started)

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def close(self) -> None:
        """Stop reading."""
        reader = self._reader
        self._stop()
        if reader is not None:
            with suppress(asyncio.CancelledError):
                await reader

    async def _read(self, started: asyncio.Future[str]) -> None:
        wait_s, cursor, mark = POLL_S, None, None
        while True:
            try:
                if cursor is None:
                    cursor = await asyncio.to_thread(self._store.feed_end)
                    if not started.done():
                        started.set_result(cursor)
                page, mark = await asyncio.to_thread(self._page_behind, cursor, mark)
                wait_s = POLL_S if mark is None else LOOK_S
            except FeedMoved:
                self.let_go()
                cursor = None
                continue
            except SteplogError as error:
                if not started.done():
                    started.set_exception(error)
                    return
                _log.warning("the feed cannot be read: %s", error)
                wait_s = min(wait_s * 2, BACK_OFF_S_MAX)
                await asyncio.sleep(wait_s)
                continue
            cursor = page.cursor
            if page.entries:
                self._deliver(Batch(page.entries, page.cursor))
            else:
                await asyncio.sleep(wait_s)

    def _page_behind(self, cursor: str, mark: str | None) -> tuple[FeedPage, str | None]:
        """What was stored since, and the mark from before it was read; where that is the mark known, nothing was."""
        now = self._store.commit_mark()
        if now is not None and now == mark:
            return FeedPage([], cursor), mark
        self.polls += 1
        page = self._store.feed(cursor)
        return page, None if page.entries else now

    def _deliver(self, batch: Batch) -> None:
        self._heard.append((time.monotonic(), len(batch.entries)))
        for listener in list(self._of_job.get(None, ())):
            listener.offer(batch)
        by_job: dict[str, list[FeedEntry]] = defaultdict(list)
        for entry in batch.entries:
            if entry.job_id in self._of_job:
                by_job[entry.job_id].append(entry)
        for job_id, entries in by_job.items():
            for listener in list(self._of_job[job_id]):
                listener.offer(Batch(entries, batch.cursor))

    def let_go(self) -> None:
        """Whoever listens comes again: the log is another one than it was, or this server ends."""
        for listener in self._everybody():
            listener.is_dropped = True
            listener.offer(Batch([], ""))

    def _everybody(self) -> Iterable[Listener]:
        return [listener for listeners in self._of_job.values() for listener in listeners]
