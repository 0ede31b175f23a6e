"""The outbox: an event loop's way to the writer, which answers a whole batch with one wake-up of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from steplog.eventstore.store import Answer, Append
from steplog.eventstore.writer import Outcome, Writer


class Outbox:
    """Sends appends for the jobs of one event loop; used in that loop's thread."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._loop = asyncio.get_running_loop()
        self._unanswered: dict[int, asyncio.Future[Answer]] = {}
        """By the identity of the append: a job that was given up and taken again may have two."""

    def send(self, item: Append) -> asyncio.Future[Answer]:
        """What becomes of the append, in the running loop; giving the future up leaves the append as it is."""
        answer = self._unanswered[id(item)] = self._loop.create_future()
        if not self.writer.offer(item, self):  # the loop must not wait for room: handlers and signals go on
            waiting = self._loop.run_in_executor(None, self.writer.put, item, self)
            waiting.add_done_callback(lambda put: self._not_taken(item, put))
        return answer

    def deliver(self, outcomes: Sequence[tuple[Append, Outcome]]) -> None:
        """As the writer's mailbox."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, outcomes)

    def _settle(self, outcomes: Sequence[tuple[Append, Outcome]]) -> None:
        for item, outcome in outcomes:
            answer = self._unanswered.pop(id(item), None)
            if answer is None or answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

    def _not_taken(self, item: Append, put: asyncio.Future[None]) -> None:
        if not put.cancelled() and isinstance(error := put.exception(), Exception):
            self._settle([(item, error)])
