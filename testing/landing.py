"""Handlers that have ended, let through one at a time, so that what each came to is an append of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_ENDING_S_MAX = 1.0
"""How long a thread that was let through may take to end before the others go on."""


class Landing:
    """Where the handlers of one loop wait at their end, whatever it is, until the loop has nothing else to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._open = False
        self._let_through: threading.Thread | None = None

    async def wait(self) -> None:
        """For an async handler."""
        landed = asyncio.Event()
        self._waiting.append(lambda: self._wake_loop(landed.set))
        if not self._open:
            await landed.wait()

    def wait_in_thread(self) -> None:
        """For a plain one, in its thread."""
        landed, thread = threading.Event(), threading.current_thread()

        def let_through() -> None:
            self._let_through = thread
            landed.set()

        self._waiting.append(let_through)
        self._wake_loop(lambda: None)
        if not self._open:
            landed.wait()

    def let_one_through(self) -> bool:
        """Whether there is one of which the loop hears in a moment."""
        if self._let_through is not None:  # the next one only behind what this one has still to say
            self._let_through.join(_ENDING_S_MAX)
            self._let_through = None
            self._wake_loop(lambda: None)
            return True
        if self._waiting:
            self._waiting.popleft()()
            return True
        return False

    def open(self) -> None:
        """Nobody waits any more."""
        self._open = True
        while self._waiting:
            self._waiting.popleft()()

    def _wake_loop(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)
