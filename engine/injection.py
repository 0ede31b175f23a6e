"""What a handler's parameters ask for: results of other sub-steps, resources, the attempt itself.

A default argument is the edge, the data flow and the checked type at once.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, cast, get_origin, overload

from typing_extensions import TypeVar

from steplog.engine.errors import DefinitionError
from steplog.engine.resources import is_async_provider
from steplog.engine.step import Step
from steplog.engine.transaction import Transaction
from steplog.projections.plan import Key, key_of

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
D = TypeVar("D")


class Produces(Generic[R_co]):
    """Something with a result of that type: a declared sub-step."""

    phase: str
    name: str

    @property
    def key(self) -> Key:
        """`phase/name`."""
        return key_of(self.phase, self.name)


class _Missing:
    """The default of a `result()` that gave none."""


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class ResultOf:
    """A default argument that stands for another sub-step's result."""

    sub_step: Produces[Any]
    default: object = MISSING

    @property
    def has_default(self) -> bool:
        return self.default is not MISSING


@dataclass(frozen=True, slots=True)
class Resource:
    """A default argument that stands for what a provider opens for each attempt."""

    provider: Callable[[], Any]


@overload
def result(sub_step: Produces[R], /) -> R: ...
@overload
def result(sub_step: Produces[R], /, *, default: D) -> R | D: ...
def result(sub_step: Produces[Any], /, *, default: object = MISSING) -> Any:
    """As a parameter's default: the result of another sub-step, which must complete first.

    If it was skipped or failed, the asking sub-step is skipped too, unless `default` is given.
    """
    return ResultOf(sub_step, default)


@overload
def use(provider: Callable[[], AbstractAsyncContextManager[R]], /) -> R: ...
@overload
def use(provider: Callable[[], AbstractContextManager[R]], /) -> R: ...
@overload
def use(provider: Callable[[], AsyncIterator[R]], /) -> R: ...
@overload
def use(provider: Callable[[], Iterator[R]], /) -> R: ...
@overload
def use(provider: Callable[[], Awaitable[R]], /) -> R: ...
@overload
def use(provider: Callable[[], R], /) -> R: ...
def use(provider: Callable[[], Any], /) -> Any:
    """As a parameter's default: a resource opened for each attempt and closed after it, never in the log.

    A provider is a function without parameters that returns the resource, or a generator or context manager around it.
    """
    return Resource(provider)


@dataclass(frozen=True, slots=True)
class Bindings:
    """What the engine passes to a handler, by parameter."""

    wants_step: bool
    results: dict[str, ResultOf]
    resources: dict[str, Resource]
    returns: Any
    is_async: bool
    transaction: str | None = None
    """The parameter that asks for a transaction: the handler is transactional."""
    item: Any = None
    """The type of the item that a fan-out's handler is called with."""


def bindings_of(handler: Callable[..., Any], where: str, *, of_item: bool = False) -> Bindings:
    """Read a handler's signature; `of_item` says that an item comes first. Raises DefinitionError for a parameter that
    nothing can fill.
    """
    parameters = list(inspect.signature(handler).parameters.values())
    hints = _hints(handler, where)
    item = hints.get(_item_of(parameters, where).name, Any) if of_item else None
    parameters = parameters[1:] if of_item else parameters
    wants_step = bool(parameters) and _is_step(parameters[0], hints)
    results: dict[str, ResultOf] = {}
    resources: dict[str, Resource] = {}
    transactions = [name for name, hint in hints.items() if hint is Transaction and name != "return"]
    for parameter in parameters[1:] if wants_step else parameters:
        if isinstance(parameter.default, ResultOf):
            results[parameter.name] = parameter.default
        elif isinstance(parameter.default, Resource):
            resources[parameter.name] = parameter.default
        elif parameter.name in transactions:
            continue
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise DefinitionError(
                f"{where}: nothing can fill the parameter {parameter.name!r}: give it a default such as "
                "result(sub_step) or use(provider), or annotate the first parameter as Step"
            )
    is_async = inspect.iscoroutinefunction(handler)
    if is_async and transactions:
        raise DefinitionError(
            f"{where}: {transactions[0]!r} asks for a transaction, which only a plain `def` handler can use: it runs "
            "in a thread of its own, on a connection that blocks"
        )
    if len(transactions) > 1:
        raise DefinitionError(f"{where}: {' and '.join(transactions)} ask for a transaction: an attempt has one")
    for name, resource in resources.items():
        if not is_async and is_async_provider(resource.provider):
            raise DefinitionError(f"{where}: {name!r} has an async provider, which only an async handler can use")
    return Bindings(
        wants_step, results, resources, hints.get("return", Any), is_async, next(iter(transactions), None), item
    )


def _item_of(parameters: list[inspect.Parameter], where: str) -> inspect.Parameter:
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise DefinitionError(f"{where}: the first parameter of a fan-out's handler is the item")
    return parameters[0]


def refuse_unfilled(handler: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """In a call without an engine: raise TypeError for a parameter left to a `result()` or `use()` default."""
    bound = inspect.signature(handler).bind(*args, **kwargs)
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        if isinstance(value, (ResultOf, Resource)):
            source = "result()" if isinstance(value, ResultOf) else "use()"
            raise TypeError(
                f"{handler.__qualname__}() was called without an engine, so {source} does not fill {name!r}: pass it"
            )


def _hints(handler: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(handler, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{where}: the annotations cannot be resolved ({error}): declare the types it names at module level"
        ) from error


def _is_step(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    if parameter.default is not parameter.empty:
        return False
    annotation = hints.get(parameter.name)
    kind = get_origin(annotation) or annotation
    unannotated = annotation is None and parameter.name == "step"
    return unannotated or (isinstance(kind, type) and issubclass(cast("type[Any]", kind), Step))
