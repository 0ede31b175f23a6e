"""The outbox: an event loop's way to the store; the writer answers a whole batch with one wake-up of the loop.

What else the loop's runs ask the store for is called in threads of the outbox's own: the loop's pool is the handlers',
who may fill it for as long as they like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple

from steplog.eventstore.store import Answer, Append, NewJob
from steplog.eventstore.writer import Item, Outcome, Writer

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Outbox:
    """Sends new jobs and appends, and makes other calls, for one event loop; used in that loop's thread.

    Giving a future up leaves what was sent as it is.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._threads = ThreadPoolExecutor(thread_name_prefix="steplog-store")
        self._loop = asyncio.get_running_loop()
        self._unanswered: dict[int, asyncio.Future[Any]] = {}
        """By the identity of what was sent: a job that was given up and taken again may have two appends."""

    def append(self, item: Append) -> asyncio.Future[Answer]:
        """The store's answer to an append."""
        return self._send(item)

    def create(self, job: NewJob) -> asyncio.Future[str]:
        """The id of a new job, as the store's `create` says it."""
        return self._send(job)

    def call(self, asked: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
        """What it returns, in a thread; while many are asked for, it waits for its turn among them."""
        return self._loop.run_in_executor(self._threads, asked, *args)

    @property
    def is_deserted(self) -> bool:
        """Whether the event loop is closed: nothing of it runs any more, whoever was to end it."""
        return self._loop.is_closed()

    def close(self) -> None:
        """Nothing more is called; what was asked for before is, and nobody waits for it."""
        self._threads.shutdown(wait=False)

    def _send(self, item: Item) -> asyncio.Future[Any]:
        outcome = self._unanswered[id(item)] = self._loop.create_future()
        if not self.writer.offer(item, self):  # the loop must not wait for room: handlers and signals go on
            waiting = self.call(self.writer.put, item, self)
            waiting.add_done_callback(lambda put: self._not_taken(item, put))
        return outcome

    def deliver(self, outcomes: Sequence[tuple[Item, Outcome]]) -> None:
        """As the writer's mailbox."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, outcomes)

    def _settle(self, outcomes: Sequence[tuple[Item, Outcome]]) -> None:
        for item, outcome in outcomes:
            waiting = self._unanswered.pop(id(item), None)
            if waiting is None or waiting.done():
                continue
            if isinstance(outcome, Exception):
                waiting.set_exception(outcome)
            else:
                waiting.set_result(outcome)

    def _not_taken(self, item: Item, put: asyncio.Future[None]) -> None:
        if not put.cancelled() and isinstance(error := put.exception(), Exception):
            self._settle([(item, error)])
