"""Plain handlers in threads: one each, waited for from the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from steplog.engine.facts import Fact

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
