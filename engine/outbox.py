"""The outbox: an event loop's way to the writer, which answers a whole batch with one wake-up of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from steplog.eventstore.store import Answer, Append, NewJob
from steplog.eventstore.writer import Item, Outcome, Writer


class Outbox:
    """Sends new jobs and appends for one event loop; used in that loop's thread.

    Giving a future up leaves what was sent as it is.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._loop = asyncio.get_running_loop()
        self._unanswered: dict[int, asyncio.Future[Any]] = {}
        """By the identity of what was sent: a job that was given up and taken again may have two appends."""

    def append(self, item: Append) -> asyncio.Future[Answer]:
        """The store's answer to an append."""
        return self._send(item)

    def create(self, job: NewJob) -> asyncio.Future[str]:
        """The id of a new job, as the store's `create` says it."""
        return self._send(job)

    def _send(self, item: Item) -> asyncio.Future[Any]:
        outcome = self._unanswered[id(item)] = self._loop.create_future()
        if not self.writer.offer(item, self):  # the loop must not wait for room: handlers and signals go on
            waiting = self._loop.run_in_executor(None, self.writer.put, item, self)
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
