"""Opening what `use(provider)` asks for, for the length of one attempt."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any

from steplog.engine.errors import DefinitionError


def is_async_provider(provider: Callable[[], Any]) -> bool:
    """Whether only an async handler can use it."""
    return inspect.iscoroutinefunction(provider) or inspect.isasyncgenfunction(provider)


def open_plain(provider: Callable[[], Any], stack: ExitStack) -> Any:
    """The resource, closed when the stack is."""
    opened = provider()
    if isinstance(opened, AbstractContextManager):
        return stack.enter_context(opened)
    if inspect.isgenerator(opened):
        return stack.enter_context(_around(opened))
    if isinstance(opened, AbstractAsyncContextManager) or inspect.isawaitable(opened):
        raise DefinitionError(f"{provider!r} is async: only an async handler can use it")
    return opened


async def open_async(provider: Callable[[], Any], stack: AsyncExitStack) -> Any:
    """The resource, closed when the stack is."""
    opened = provider()
    if inspect.isawaitable(opened):
        opened = await opened
    if isinstance(opened, AbstractAsyncContextManager):
        return await stack.enter_async_context(opened)
    if inspect.isasyncgen(opened):
        return await stack.enter_async_context(_around_async(opened))
    if isinstance(opened, AbstractContextManager):
        return stack.enter_context(opened)
    if inspect.isgenerator(opened):
        return stack.enter_context(_around(opened))
    return opened


def _around(generator: Iterator[Any]) -> AbstractContextManager[Any]:
    return contextmanager(lambda: generator)()


def _around_async(generator: AsyncIterator[Any]) -> AbstractAsyncContextManager[Any]:
    return asynccontextmanager(lambda: generator)()
