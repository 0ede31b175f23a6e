"""Running to the end in an event loop of one's own, also where a handler will not end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_the_end(main: Coroutine[Any, Any, T], *, grace_s: float) -> T:
    """What the coroutine returns. Raises RuntimeError inside a running event loop.

    Unlike `asyncio.run` it waits no longer than the grace period for handlers that do not let themselves be cancelled,
    and for no thread: a job that was parked because of one must not keep its caller.
    """
    if _is_in_event_loop():
        main.close()
        raise RuntimeError("run() was called inside a running event loop: write `await workflow.arun(…)` there")
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _end_what_is_left(loop, grace_s)
        finally:
            loop.close()


def _end_what_is_left(loop: asyncio.AbstractEventLoop, grace_s: float) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=grace_s))
    loop.run_until_complete(loop.shutdown_asyncgens())


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
