"""Plain handlers: each in a thread that takes turns with the loop, so that a story is the same every time.

While such a thread goes on the loop stands still, and it stands still wherever its handler waits.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from steplog.engine import threads as of_handlers
from steplog.engine import transactional

T = TypeVar("T")

GO_ON_S_MAX = 60.0
"""How long a thread may go on without waiting, in real time."""

_current: ContextVar[HandlerThread] = ContextVar("thread")


class Unwound(BaseException):
    """The story is over, or the process: nothing depends on this thread any more."""


class HandlerThread:
    """One call of a plain handler."""

    def __init__(self, body: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._body = body
        self._go = threading.Semaphore(0)
        self._stands = threading.Semaphore(0)
        self._is_over = False
        self._is_unwound = False
        self._inside = copy_context()
        self._thread = threading.Thread(target=self._inside.copy().run, args=(self._run,), daemon=True)
        self._thread.start()
        self._loop.call_soon(self.go_on, context=self._inside)

    def go_on(self) -> None:
        """In the loop's thread: let it go on until it waits or ends."""
        if not self._is_over:
            self._go.release()
            if not self._stands.acquire(timeout=GO_ON_S_MAX):
                raise RuntimeError("a handler waits for something that the simulation does not know")

    def sleep(self, seconds: float) -> None:
        """In its own: stand still for so long."""
        self._loop.call_later(seconds, self.go_on, context=self._inside)
        self.stand()

    def wait_for(self, future: Future[T]) -> T:
        """In its own: what the loop makes of it."""
        if not future.done():
            future.add_done_callback(lambda _: self._loop.call_soon(self.go_on, context=self._inside))
            self.stand()
        return future.result()

    def stand(self) -> None:
        """In its own: until somebody lets it go on."""
        self._stands.release()
        self._go.acquire()
        if self._is_unwound:
            raise Unwound

    def unwind(self) -> None:
        """Let it end."""
        self._is_unwound = True
        self._go.release()
        self._thread.join(GO_ON_S_MAX)

    def _run(self) -> None:
        _current.set(self)
        self._go.acquire()
        try:
            if not self._is_unwound:
                self._body()
        except Unwound:
            pass
        finally:
            self._is_over = True
            self._stands.release()


def current() -> HandlerThread:
    """The caller's thread."""
    return _current.get()


@contextmanager
def taking_turns() -> Iterator[list[HandlerThread]]:
    """Let the engine call plain handlers so; the threads that it had."""
    threads: list[HandlerThread] = []

    def in_thread(call: Callable[[], Any], name: str) -> asyncio.Future[Any]:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def finish(outcome: Any) -> None:
            if not ended.done():
                ended.set_result(outcome)

        def body() -> None:
            outcome = call()
            ended.get_loop().call_soon(finish, outcome)

        threads.append(HandlerThread(body))
        return ended

    def awaited(recording: Coroutine[Any, Any, bool], loop: asyncio.AbstractEventLoop) -> bool:
        thread = _current.get(None)
        if thread is None:  # a handler that was left behind by whatever ran before in this process
            return real[1](recording, loop)
        try:
            return thread.wait_for(asyncio.run_coroutine_threadsafe(recording, loop))
        except Unwound:
            if inspect.getcoroutinestate(recording) == inspect.CORO_CREATED:
                recording.close()
            raise

    real = of_handlers.in_thread, transactional._awaited
    of_handlers.in_thread, transactional._awaited = in_thread, awaited
    try:
        yield threads
    finally:
        of_handlers.in_thread, transactional._awaited = real
        for thread in threads:
            thread.unwind()
