"""The runner's inbox: facts wait here until the append that records them is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from steplog.engine.errors import AttemptOver
from steplog.engine.facts import Fact


class Entry(NamedTuple):
    """A fact, and whom to tell once it is durable."""

    fact: Fact
    durable: Future[None] | None = None


class Inbox:
    """Facts in the order they arrived, from any thread; made, and waited for, in one event loop's thread.

    Whoever waits for a fact to be durable is told, whenever the run ends: nothing depends on the loop going on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._entries: list[Entry] = []
        self._woken = False
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def post(self, fact: Fact, durable: Future[None] | None = None) -> None:
        """Add a fact. After the run's end it is dropped: the log says interrupted."""
        entry = Entry(fact, durable)
        with self._lock:
            closed = self._closed
            if not closed:
                self._entries.append(entry)
        if closed:
            _refuse(entry)
        self.wake()

    @property
    def is_empty(self) -> bool:
        """Whether everything that arrived is acknowledged."""
        return not self._entries

    def wake(self) -> None:
        """Let whoever waits look again, without a fact."""
        if threading.get_ident() == self._thread:
            self._wake()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it in the loop's thread after a while, unless the loop has ended by then."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, call)

    async def wait(self, timeout_s: float | None) -> None:
        """Until there is something new, `wake` was called, or the time has passed."""
        if not self._woken:
            self._waiting = self._loop.create_future()
            alarm = None if timeout_s is None else self._loop.call_later(timeout_s, self._wake)
            try:
                await self._waiting
            finally:
                if alarm is not None:
                    alarm.cancel()
        self._woken = False

    def entries(self) -> Sequence[Entry]:
        """What is not acknowledged yet; it stays."""
        with self._lock:
            return tuple(self._entries)

    def acknowledge(self, entries: Sequence[Entry], unrecorded: Collection[Fact] = ()) -> None:
        """The first entries are durable, or will never be: tell whoever waits and let them go."""
        if not entries:
            return
        with self._lock:
            del self._entries[: len(entries)]
        for entry in entries:
            if unrecorded and any(entry.fact is fact for fact in unrecorded):
                _refuse(entry)
            elif entry.durable is not None:
                entry.durable.set_result(None)

    def close(self) -> None:
        """Nothing more will be recorded: tell whoever still waits."""
        with self._lock:
            self._closed = True
            left, self._entries = self._entries, []
        for entry in left:
            _refuse(entry)


def _refuse(entry: Entry) -> None:
    if entry.durable is not None:
        entry.durable.set_exception(AttemptOver("the attempt is over: this is not recorded"))
