"""The runner's inbox: facts wait here until the append that records them is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from steplog.engine.errors import AttemptOver
from steplog.engine.facts import Fact


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact, and whom to tell once it is durable."""

    fact: Fact
    durable: Future[None] | None = None


class Inbox:
    """Facts in the order they arrived. Belongs to one event loop; `post_from_thread` is for everybody else."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: list[Entry] = []
        self._arrived = asyncio.Event()
        self._closed = False

    def post(self, fact: Fact, durable: Future[None] | None = None) -> None:
        """Add a fact, from the loop's own thread. After the run's end it is dropped: the log says interrupted."""
        if self._closed:
            refuse(durable)
            return
        self._entries.append(Entry(fact, durable))
        self._arrived.set()

    def post_from_thread(self, fact: Fact, durable: Future[None] | None = None) -> None:
        """Add a fact from another thread."""
        try:
            self._loop.call_soon_threadsafe(self.post, fact, durable)
        except RuntimeError:
            refuse(durable)

    def wake(self) -> None:
        """Let whoever waits look again, without a fact."""
        self._arrived.set()

    def wake_from_thread(self) -> None:
        """The same from another thread; nobody waits any more after the run's end."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.wake)

    async def wait(self, timeout_s: float | None) -> None:
        """Until there is something new, `wake` was called, or the time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        self._arrived.clear()

    def entries(self) -> Sequence[Entry]:
        """What is not acknowledged yet; it stays."""
        return tuple(self._entries)

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """The first entries are durable: tell whoever waits for it and let them go."""
        del self._entries[: len(entries)]
        for entry in entries:
            if entry.durable is not None:
                entry.durable.set_result(None)

    def close(self) -> None:
        """Nothing more will be recorded: tell whoever still waits."""
        self._closed = True
        for entry in self._entries:
            refuse(entry.durable)
        self._entries.clear()


def refuse(durable: Future[None] | None) -> None:
    """Tell somebody waiting that the fact will not be recorded."""
    if durable is not None:
        durable.set_exception(AttemptOver("the run is over: this is not recorded"))
