"""The threads of a process's plain handlers. A thread cannot be killed with its process, so it is kept out of the way.

A handler that is running goes on to its next checkpoint or report, or to its end. From there on it stands still until
its process is buried, and so does one that had not begun.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from steplog.engine.step import AttemptChannel, Step
from steplog.projections.plan import Key

GO_ON_S_MAX = 30.0
"""How long handlers of a killed process may go on, in real time."""


class Killed(BaseException):
    """The process was killed. Raised in its threads once nothing depends on them any more."""


class Threads:
    """Those of one process."""

    def __init__(self) -> None:
        self._dead = False
        self._going: dict[int, Key] = {}
        """By thread, what runs in it and does not wait for the loop."""
        self._changed = threading.Condition()
        self._buried = threading.Event()

    @contextmanager
    def going(self, key: Key) -> Iterator[None]:
        """Around a handler's call, in its thread."""
        self._enter(key)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def waiting(self, key: Key) -> Iterator[None]:
        """Inside it, while it waits for the loop."""
        self._leave()
        try:
            yield
        finally:
            self._enter(key)

    def stand_still_if_dead(self) -> None:
        """Raises Killed, once the dead process is buried."""
        if self._dead:
            self._leave()
            self._buried.wait()
            raise Killed

    def die(self) -> None:
        """The process is dead from now on."""
        with self._changed:
            self._dead = True

    def await_standstill(self) -> None:
        """Until none of a dead process goes on. Raises RuntimeError naming those that do not end."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._going, GO_ON_S_MAX):
                raise RuntimeError(
                    f"{', '.join(self._going.values())} still ran {GO_ON_S_MAX:g} s after its worker was killed: "
                    "a thread cannot be killed with it"
                )

    def bury(self) -> None:
        """Let those that stand still unwind."""
        self._buried.set()

    def _enter(self, key: Key) -> None:
        with self._changed:
            if not self._dead:
                self._going[threading.get_ident()] = key
        self.stand_still_if_dead()

    def _leave(self) -> None:
        with self._changed:
            self._going.pop(threading.get_ident(), None)
            self._changed.notify_all()


class Gate:
    """The channel of a plain handler's attempt, through which nothing goes once its process is dead."""

    def __init__(self, channel: AttemptChannel, threads: Threads, key: Key) -> None:
        self._channel = channel
        self._threads = threads
        self._key = key

    def checkpoint(self, cursor: Any) -> Awaitable[None]:
        with self._threads.waiting(self._key):
            return self._channel.checkpoint(cursor)

    def __getattr__(self, name: str) -> Any:
        self._threads.stand_still_if_dead()
        return getattr(self._channel, name)


def through_gate(step: Step[Any, Any], threads: Threads) -> None:
    """Let the step's reports pass a gate."""
    gate = Gate(step._channel, threads, f"{step.phase}/{step.name}")
    step._channel = cast(AttemptChannel, gate)
