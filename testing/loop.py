"""An event loop on a virtual clock: where nothing is ready, time jumps to the next timer. The same run every time.

What would run in a thread of the executor runs at once, in the loop's own.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from steplog.testing.clock import VirtualClock

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: these tasks wait for ever."""

    def __init__(self, waiting: list[str]) -> None:
        super().__init__(f"nothing is ready and no timer is set: {'; '.join(waiting) or 'no task'} would wait for ever")
        self.waiting = waiting


class VirtualLoop(asyncio.SelectorEventLoop):
    """Raises Deadlock out of `run_until_complete` where waiting would not end."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_NoWaiting(self))
        self.clock = clock
        self._clock_resolution = (
            5e-7  # the clock's microseconds, not the machine's nanoseconds: floats of years lack them
        )

    def time(self) -> float:
        return self.clock.monotonic()

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
        """Call it now; the future is done."""
        called: asyncio.Future[T] = self.create_future()
        try:
            called.set_result(func(*args))
        except Exception as error:
            called.set_exception(error)
        return called

    def turn(self) -> None:
        """Called before each round of what is ready."""

    def is_awaited_outside(self, files: int) -> bool:
        """Whether a thread, or one of so many open files, is to be waited for, really and up to the next timer.

        Asked where nothing is ready. If not, time jumps.
        """
        return False


class _NoWaiting(selectors.DefaultSelector):
    """Waits by moving the loop's clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        found: list[Any] = []
        if (timeout is None or timeout > 0) and self._loop.is_awaited_outside(len(self.get_map()) - 1):
            found = super().select(timeout)
        if not found:
            self._pass_time(timeout)
        self._loop.turn()
        return found

    def _pass_time(self, timeout: float | None) -> None:
        if timeout is None:
            raise Deadlock([_where(task) for task in asyncio.all_tasks(self._loop)])
        if timeout > 0:  # up to the next microsecond: a timer is never early
            self._loop.clock.advance(math.ceil(timeout * 1e6) / 1e6)


def _where(task: asyncio.Task[Any]) -> str:
    """A task's name and the line on which it waits."""
    frames = task.get_stack()
    at = f" at {frames[-1].f_code.co_name}:{frames[-1].f_lineno}" if frames else ""
    return f"{task.get_name()}{at}"
