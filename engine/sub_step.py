"""A declared sub-step: its handler, how it runs, and what its parameters ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, overload

from typing_extensions import ParamSpec, TypeVar

from steplog.engine.errors import DefinitionError
from steplog.engine.injection import Bindings, Produces, ResultOf, bindings_of, refuse_unfilled
from steplog.engine.policies import Duration, Retry, Skip, retry_of, seconds_of
from steplog.engine.step import Job
from steplog.projections.plan import OnInterrupt, WaitPlan

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Out = TypeVar("Out")


Isolate = Literal["process"]
"""Where a handler runs that is not to share its worker's process."""


class Plain(Protocol[P, R_co]):
    """A handler whose every parameter has a default."""

    @overload
    def __call__(self) -> R_co: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


@dataclass(frozen=True, slots=True)
class FanOut:
    """What makes a sub-step one of many items: where they come from, what tells them apart, how many run at once."""

    items: ResultOf | Callable[[Job[Any, Any]], Iterable[Any]] | Iterable[Any]
    key: Callable[[Any], str | int] | None
    parallel: int


class SubStep(Produces[R], Generic[P, Out, R]):
    """A declared sub-step. Calling it calls its handler, without an engine."""

    def __init__(
        self, handler: Callable[P, Out], phase: str, name: str, options: Options, fan_out: FanOut | None = None
    ) -> None:
        self.handler = handler
        self.phase = phase
        self.name = name
        self.options = options
        self.fan_out = fan_out
        self.undo: AnySubStep | None = None
        """Its compensation: no sub-step of the plan."""
        self.bindings: Bindings = bindings_of(handler, f"{phase}/{name}", of_item=fan_out is not None)
        if options.isolate is not None:
            _refuse_isolation(handler, self.bindings, f"{phase}/{name}")
        self.__doc__ = handler.__doc__
        self.__name__ = name

    @property
    def returns(self) -> Any:
        """The type of its result: of a fan-out, a list of what its handler returns."""
        returns: Any = self.bindings.returns
        return returns if self.fan_out is None else list[returns]

    @property
    def sources(self) -> list[ResultOf]:
        """The results of others that it needs."""
        of_items = [self.fan_out.items] if self.fan_out and isinstance(self.fan_out.items, ResultOf) else []
        return [*of_items, *self.bindings.results.values()]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out:
        """Call the handler as a unit test would. Raises TypeError where an injected parameter was not passed."""
        refuse_unfilled(self.handler, args, kwargs)
        return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<sub-step {self.key}>"


def _refuse_isolation(handler: Callable[..., Any], bindings: Bindings, where: str) -> None:
    """Raise DefinitionError for a handler that cannot run in another process."""
    if bindings.transaction is not None:
        raise DefinitionError(
            f"{where}: isolate='process' and a transaction exclude each other: the transaction is on a connection of "
            "the worker, and what commits it must be there; do the work in one sub-step and record it in another"
        )
    if "<locals>" in handler.__qualname__:
        raise DefinitionError(
            f"{where}: isolate='process' needs a handler at module level, where another process can import it"
        )


AnySubStep = SubStep[..., Any, Any]


class Options:
    """How a sub-step runs: edges, policies, condition."""

    def __init__(
        self,
        *,
        name: str | None = None,
        after: Iterable[Produces[Any]] = (),
        when: Callable[[Job[Any, Any]], bool | Skip] | None = None,
        optional: bool = False,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        deadline: Duration | None = None,
        on_interrupt: OnInterrupt = "retry",
        isolate: Isolate | None = None,
        wait: WaitPlan | None = None,
    ) -> None:
        self.name = name
        self.wait = wait
        self.has_default = False
        self.default: Any = None
        """The result of a wait that is over without its signal, as plain JSON, if it has one."""
        if isinstance(after, Produces):
            raise DefinitionError(f"after= takes a list: after=[{after.name}]")
        self.after = tuple(after)
        self.when = when
        self.optional = optional
        self.retry = retry_of(retry)
        self.on_interrupt: OnInterrupt = on_interrupt
        if isolate not in (None, "process"):
            raise DefinitionError(f"isolate={isolate!r}: a handler runs in its worker, or in a 'process' of its own")
        self.isolate = isolate
        self.timeout_s = None if timeout is None else seconds_of(timeout)
        self.deadline_s = None if deadline is None else seconds_of(deadline)
        for edge in self.after:
            if not isinstance(edge, Produces):
                raise DefinitionError(f"after= takes sub-steps, not {edge!r}")
        if inspect.iscoroutinefunction(when):
            raise DefinitionError("when= is asked between two appends and cannot be async: let a sub-step find out")
