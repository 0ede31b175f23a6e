"""Threads of the engine's own: for plain handlers, and for what must not wait until handlers leave a pool.

The event loop's default pool is the handlers' (`asyncio.to_thread`): they may fill it for as long as they like.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar, TypeVarTuple

from steplog.engine.facts import Fact

T = TypeVar("T")
Args = TypeVarTuple("Args")

logger = logging.getLogger("steplog.engine")


def in_thread(call: Callable[[], Fact | None], name: str) -> asyncio.Future[Fact | None]:
    """Run in a daemon thread of its own: a handler that never ends must not keep the process alive."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Fact | None] = loop.create_future()

    def finish(called: Future[Fact | None]) -> None:
        if ended.done():
            return
        if (error := called.exception()) is not None:
            ended.set_exception(error)
        else:
            ended.set_result(called.result())

    def body() -> None:
        called: Future[Fact | None] = Future()
        try:
            called.set_result(call())
        except BaseException as error:  # whatever it is, somebody waits for this thread
            called.set_exception(error)
        try:
            loop.call_soon_threadsafe(finish, called)
        except RuntimeError:
            logger.debug("%s ended after its run; the log says that it was interrupted", name)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(body,), name=name, daemon=True).start()
    return ended


def at_once(call: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
    """Run in a thread of its own that begins now: others in a pool may be waiting for what this call ends."""
    return asyncio.get_running_loop().run_in_executor(_EACH_ITS_OWN, call, *args)


async def finished(call: asyncio.Future[T], patience_s: float | None = None) -> T:
    """What it comes to, for it must be known; who is cancelled meanwhile hears of that at its next await.

    After so many seconds of patience, if any are given, it is not waited for any longer: raises CancelledError.
    """
    cancelled: asyncio.Task[Any] | None = None
    while not call.done():
        try:
            await asyncio.wait({call}, timeout=patience_s if cancelled else None)
            if cancelled and not call.done():
                raise asyncio.CancelledError
        except asyncio.CancelledError:
            if cancelled and not call.done() and patience_s is not None:
                raise
            cancelled = asyncio.current_task()
    if cancelled is not None:
        cancelled.uncancel()  # it was counted, and is no further one
        cancelled.cancel()
    return call.result()


class _EachItsOwn(Executor):
    """A thread for every call; one that does not end does not keep the process alive."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        called: Future[T] = Future()
        called.set_running_or_notify_cancel()  # it is called, whoever stops waiting

        def body() -> None:
            try:
                called.set_result(fn(*args, **kwargs))
            except BaseException as error:  # whatever it is, somebody waits for this thread
                called.set_exception(error)

        threading.Thread(target=body, name="steplog-call", daemon=True).start()
        return called


_EACH_ITS_OWN = _EachItsOwn()
