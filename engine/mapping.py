"""`map`: how a fan-out is declared, one handler for each item of a list, checked by the type checker."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, Generic, Protocol, overload

from typing_extensions import ParamSpec, TypeVar

from steplog.engine.context import Context
from steplog.engine.errors import DefinitionError
from steplog.engine.injection import Produces
from steplog.engine.policies import Duration, Retry, Skip
from steplog.engine.step import Job, NoInput, Step
from steplog.engine.sub_step import AnySubStep, FanOut, Isolate, Options, SubStep
from steplog.engine.transaction import Transaction
from steplog.projections.plan import OnInterrupt

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
I = TypeVar("I", default=NoInput)  # noqa: E741  # the field's usual letter for an input type
C = TypeVar("C", bound=Context, default=Context)

PARALLEL = 16
"""How many items of a fan-out run at once unless it says otherwise: a list may be long, and threads are not free."""


class OfItem(Protocol[T_contra, P, R_co]):
    """A handler whose every parameter behind the item has a default."""

    @overload
    def __call__(self, item: T_contra, /) -> R_co: ...
    @overload
    def __call__(self, item: T_contra, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class MapDecorator(Generic[T, I, C]):
    """What `map(...)` returns: it takes the handler of one item."""

    def __init__(self, declare: Callable[[Callable[..., Any]], AnySubStep]) -> None:
        self._declare = declare

    @overload
    def __call__(
        self, handler: Callable[Concatenate[T, Step[I, C], P], Coroutine[Any, Any, R]], /
    ) -> SubStep[Concatenate[T, Step[I, C], P], Coroutine[Any, Any, R], list[R]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[T, Step[I, C], P], R], /
    ) -> SubStep[Concatenate[T, Step[I, C], P], R, list[R]]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[T, Transaction, P], R], /
    ) -> SubStep[Concatenate[T, Transaction, P], R, list[R]]: ...
    @overload
    def __call__(
        self, handler: OfItem[T, P, Coroutine[Any, Any, R]], /
    ) -> SubStep[Concatenate[T, P], Coroutine[Any, Any, R], list[R]]: ...
    @overload
    def __call__(self, handler: OfItem[T, P, R], /) -> SubStep[Concatenate[T, P], R, list[R]]: ...
    def __call__(self, handler: Callable[..., Any], /) -> Any:
        """Declare the handler."""
        return self._declare(handler)


class Maps(ABC, Generic[I, C]):
    """Where fan-outs are declared."""

    @abstractmethod
    def _declare(self, handler: Callable[..., Any], options: Options, fan_out: FanOut | None = None) -> AnySubStep:
        """Take a handler in under its name."""

    def map(
        self,
        *,
        items: Iterable[T] | Callable[[Job[I, C]], Iterable[T]],
        key: Callable[[T], str | int] | None = None,
        parallel: int = PARALLEL,
        name: str | None = None,
        after: Iterable[Produces[Any]] = (),
        when: Callable[[Job[I, C]], bool | Skip] | None = None,
        optional: bool = False,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        deadline: Duration | None = None,
        on_interrupt: OnInterrupt = "retry",
        isolate: Isolate | None = None,
    ) -> MapDecorator[T, I, C]:
        """Declare a sub-step that does the same for each item of a list: `@phase.map(items=result(list_dishes), …)`.

        `items` is the result of another sub-step, a function of the job, or a list; it is asked for once and recorded.
        `key` names an item, in the log and in its idempotency key; text and whole numbers name themselves. `parallel`
        bounds how many run at once. `retry`, `timeout`, `on_interrupt` and `isolate` are for each item, everything else
        is for the group. Its result is the list of what the handler returned, in the items' order; items that were
        skipped have none. An item that fails for good lets no other begin and fails the group; with `optional=True` the
        others go on, and the failures are tolerated. Raises DefinitionError.
        """
        if isinstance(items, Produces):
            raise DefinitionError(f"items= takes what a sub-step returns: items=result({items.name})")
        if inspect.iscoroutinefunction(items):
            raise DefinitionError("items= is asked between two appends and cannot be async: let a sub-step list them")
        if parallel < 1:
            raise DefinitionError(f"parallel={parallel} would never run anything")
        options = Options(
            name=name,
            after=after,
            when=when,
            optional=optional,
            retry=retry,
            timeout=timeout,
            deadline=deadline,
            on_interrupt=on_interrupt,
            isolate=isolate,
        )
        fan_out = FanOut(items, key, parallel)
        return MapDecorator(lambda handler: self._declare(handler, options, fan_out))
