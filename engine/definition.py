"""The shape that a workflow declares: phases of sub-steps, checked by the type checker and again at declaration."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, Generic, Literal, overload

from pydantic import ValidationError
from typing_extensions import ParamSpec, TypeVar

from steplog.engine.context import Context
from steplog.engine.errors import DefinitionError
from steplog.engine.injection import MISSING, Produces
from steplog.engine.limits import Limit
from steplog.engine.mapping import Maps
from steplog.engine.policies import Duration, Retry, Skip, seconds_of
from steplog.engine.secret_values import holds_secrets
from steplog.engine.step import Job, NoInput, Step
from steplog.engine.sub_step import AnySubStep, FanOut, Isolate, Options, Plain, SubStep
from steplog.engine.transaction import Transaction
from steplog.engine.values import dump
from steplog.eventstore.codec import check_name
from steplog.eventstore.errors import PayloadRefused
from steplog.projections.outset import Outset
from steplog.projections.plan import Key, OnInterrupt, WaitPlan, key_of

P = ParamSpec("P")
R = TypeVar("R")
I = TypeVar("I", default=NoInput)  # noqa: E741  # the field's usual letter for an input type
C = TypeVar("C", bound=Context, default=Context)

__all__ = ["AnyDefinition", "AnySubStep", "Declares", "Decorator", "Definition", "Options", "Phase", "SubStep"]

MAIN_PHASE = "main"
"""The phase of sub-steps declared on the workflow itself."""


class Decorator(Generic[I, C]):
    """What `sub_step(...)` with options returns."""

    def __init__(self, declare: Callable[[Callable[..., Any], Options], AnySubStep], options: Options) -> None:
        self._declare = declare
        self._options = options

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Step[I, C], P], Coroutine[Any, Any, R]], /
    ) -> SubStep[Concatenate[Step[I, C], P], Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[Step[I, C], P], R], /
    ) -> SubStep[Concatenate[Step[I, C], P], R, R]: ...
    @overload
    def __call__(
        self, handler: Callable[Concatenate[Transaction, P], R], /
    ) -> SubStep[Concatenate[Transaction, P], R, R]: ...
    @overload
    def __call__(self, handler: Plain[P, Coroutine[Any, Any, R]], /) -> SubStep[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, handler: Plain[P, R], /) -> SubStep[P, R, R]: ...
    def __call__(self, handler: Callable[..., Any], /) -> Any:
        """Declare the handler."""
        return self._declare(handler, self._options)


class Declares(Maps[I, C]):
    """Where sub-steps are declared: a phase, or a workflow's one unnamed phase."""

    @overload
    def sub_step(
        self, handler: Callable[Concatenate[Step[I, C], P], Coroutine[Any, Any, R]], /
    ) -> SubStep[Concatenate[Step[I, C], P], Coroutine[Any, Any, R], R]: ...
    @overload
    def sub_step(
        self, handler: Callable[Concatenate[Step[I, C], P], R], /
    ) -> SubStep[Concatenate[Step[I, C], P], R, R]: ...
    @overload
    def sub_step(
        self, handler: Callable[Concatenate[Transaction, P], R], /
    ) -> SubStep[Concatenate[Transaction, P], R, R]: ...
    @overload
    def sub_step(self, handler: Plain[P, Coroutine[Any, Any, R]], /) -> SubStep[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def sub_step(self, handler: Plain[P, R], /) -> SubStep[P, R, R]: ...
    @overload
    def sub_step(
        self,
        /,
        *,
        name: str | None = None,
        after: Iterable[Produces[Any]] = (),
        when: Callable[[Job[I, C]], bool | Skip] | None = None,
        optional: bool = False,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        deadline: Duration | None = None,
        on_interrupt: OnInterrupt = "retry",
        isolate: Isolate | None = None,
    ) -> Decorator[I, C]: ...
    def sub_step(self, handler: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Declare a sub-step, as `@phase.sub_step` or `@phase.sub_step(retry=3, …)`.

        `name` where the function's is not the wanted one; `after` sub-steps that must have settled first; `when` a
        condition on input and context, asked once; `optional` failures are tolerated; `retry` attempts in all;
        `timeout` of each attempt; `deadline` of all attempts and what lies between them; `on_interrupt` what becomes of
        one whose owner died or had to stop; `isolate="process"` runs each attempt in a process of its own, which ends
        with it. Raises DefinitionError.
        """
        decorator: Decorator[I, C] = Decorator(self._declare, Options(**options))
        return decorator if handler is None else decorator(handler)

    def compensate(
        self,
        sub_step: Produces[Any],
        /,
        *,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        isolate: Isolate | None = None,
    ) -> Decorator[I, C]:
        """Declare how a completed sub-step's effect is undone: `@phase.compensate(charge, retry=5)`.

        Undone are the sub-steps that have completed, the last one first, one at a time, before a job ends in one of the
        ways that its workflow names with `compensate_on`. The handler may ask for the sub-step's own result, and for
        others with a default; it has an idempotency key of its own, and writes no context. Raises DefinitionError.
        """
        return Decorator(
            lambda handler, options: self._undo(sub_step, handler, options),
            Options(retry=retry, timeout=timeout, isolate=isolate),
        )

    @abstractmethod
    def _undo(self, of: Produces[Any], handler: Callable[..., Any], options: Options) -> AnySubStep:
        """Take a compensation in."""

    def sleep(
        self,
        duration: Duration,
        *,
        name: str | None = None,
        after: Iterable[Produces[Any]] = (),
        when: Callable[[Job[I, C]], bool | Skip] | None = None,
    ) -> SubStep[[], None, None]:
        """Declare a sub-step that only waits: durably, holding no thread. It is named `sleep_` and the duration."""
        wait = WaitPlan(kind="sleep", signal=None, seconds=seconds_of(duration))
        options = Options(name=name or f"sleep_{duration}", after=after, when=when, wait=wait)
        return self._declare(_waiting(None), options)

    @overload
    def wait_for_signal(
        self,
        signal: str,
        /,
        *,
        timeout: Duration | None = None,
        name: str | None = None,
        after: Iterable[Produces[Any]] = (),
        when: Callable[[Job[I, C]], bool | Skip] | None = None,
        optional: bool = False,
    ) -> SubStep[[], Any, Any]: ...
    @overload
    def wait_for_signal(
        self,
        signal: str,
        payload: type[R],
        /,
        *,
        timeout: Duration | None = None,
        default: R = ...,
        name: str | None = None,
        after: Iterable[Produces[Any]] = (),
        when: Callable[[Job[I, C]], bool | Skip] | None = None,
        optional: bool = False,
    ) -> SubStep[[], R, R]: ...
    def wait_for_signal(
        self,
        signal: str,
        payload: Any = Any,
        /,
        *,
        timeout: Duration | None = None,
        default: Any = MISSING,
        name: str | None = None,
        **options: Any,
    ) -> Any:
        """Declare a sub-step that waits for a signal, durably, holding no thread; the signal's payload is its result.

        A signal that was sent before counts, and each is taken once. Without one in `timeout` it fails, or completes
        with `default`. It is named as the signal is.
        """
        if holds_secrets(payload):
            raise DefinitionError(f"signal {signal}: a payload is recorded as it comes, so it can have no secrets")
        seconds = None if timeout is None else seconds_of(timeout)
        wait = WaitPlan(kind="signal", signal=_named(signal, "signal"), seconds=seconds)
        declared = Options(name=name or signal, wait=wait, **options)
        if default is not MISSING:
            declared.has_default, declared.default = True, dump(default, payload, "default")
        return self._declare(_waiting(payload), declared)


class Phase(Declares[I, C]):
    """A barrier: the next phase starts when every sub-step of this one has settled."""

    def __init__(self, workflow: Definition[I, C], name: str, description: str | None, parallel: int | None) -> None:
        self.workflow = workflow
        self.name = name
        self.description = description
        self.parallel = parallel
        self.sub_steps: dict[str, AnySubStep] = {}

    def _declare(self, handler: Callable[..., Any], options: Options, fan_out: FanOut | None = None) -> AnySubStep:
        name = _named(options.name or getattr(handler, "__name__", ""), f"sub-step of {self.name}")
        if name in self.sub_steps:
            raise DefinitionError(f"{key_of(self.name, name)} is declared twice")
        sub_step: AnySubStep = SubStep(handler, self.name, name, options, fan_out)
        for edge in (*options.after, *(source.sub_step for source in sub_step.sources)):
            self.workflow.check_edge(sub_step, edge)
        self.sub_steps[name] = sub_step
        self.workflow.sub_steps[sub_step.key] = sub_step
        self.workflow.outset = None
        return sub_step

    def _undo(self, of: Produces[Any], handler: Callable[..., Any], options: Options) -> AnySubStep:
        return self.workflow._undo(of, handler, options)


class Definition(Declares[I, C]):
    """A workflow's shape: everything that deciding and running need to know of it."""

    def __init__(
        self,
        name: str,
        input_type: type[I],
        context_type: type[C],
        version: str,
        deadline: Duration | None = None,
        compensate_on: Iterable[CompensateOn] = (),
    ) -> None:
        self.name = _named(name, "workflow")
        self.version = version
        self.input_type = input_type
        self.context_type = context_type
        self.deadline_s = None if deadline is None else seconds_of(deadline)
        self.compensate_on = _ends(compensate_on, name)
        _check_context(context_type, name)
        self.phases: dict[str, Phase[I, C]] = {}
        self.sub_steps: dict[Key, AnySubStep] = {}
        self.limits: list[Limit] = []
        self.schedules: list[Any] = []
        """When jobs of it are submitted by themselves: each a Schedule."""
        self.outset: Outset | None = None
        """What `outset_of` has made of it, until more is declared."""

    @property
    def declares_secrets(self) -> bool:
        """Whether any type of it does: of the input, the context, a result or an item."""
        kinds = (kind for step in self.sub_steps.values() for kind in (step.bindings.returns, step.bindings.item))
        return any(map(holds_secrets, (self.input_type, self.context_type, *kinds)))

    def phase(self, name: str, *, description: str | None = None, parallel: int | None = None) -> Phase[I, C]:
        """Declare the next phase; `parallel` bounds how many of its sub-steps run at once."""
        if _named(name, "phase") in self.phases:
            raise DefinitionError(f"phase {name} is declared twice")
        if "/" in name:
            raise DefinitionError(f"a phase's name has no slash: {name!r}")
        if parallel is not None and parallel < 1:
            raise DefinitionError(f"phase {name}: parallel={parallel} would never run anything")
        phase = Phase(self, name, description, parallel)
        self.phases[name] = phase
        self.outset = None
        return phase

    def _declare(self, handler: Callable[..., Any], options: Options, fan_out: FanOut | None = None) -> AnySubStep:
        if MAIN_PHASE not in self.phases:
            self.phase(MAIN_PHASE)
        return self.phases[MAIN_PHASE]._declare(handler, options, fan_out)

    def _undo(self, of: Produces[Any], handler: Callable[..., Any], options: Options) -> AnySubStep:
        undone = self.sub_steps.get(of.key) if isinstance(of, Produces) else None
        if undone is None or undone is not of:
            raise DefinitionError(f"compensate() takes a sub-step of {self.name}, not {of!r}")
        if undone.undo is not None:
            raise DefinitionError(f"the compensation of {undone.key} is declared twice")
        undo: AnySubStep = SubStep(handler, undone.phase, undone.name, options)
        for source in undo.sources:
            if source.sub_step is not undone and not source.has_default:
                needed = f"the compensation of {undone.key} needs the result of {source.sub_step.key}"
                raise DefinitionError(f"{needed}, which may not have completed: give result() a default")
        undone.undo = undo
        self.outset = None
        return undo

    def check_edge(self, sub_step: AnySubStep, edge: Produces[Any]) -> None:
        """Raise DefinitionError for an edge from another workflow or from a later phase."""
        order = list(self.phases)
        if self.sub_steps.get(edge.key) is not edge:
            raise DefinitionError(f"{sub_step.key} has an edge from {edge.key}, which is of another workflow")
        if order.index(edge.phase) > order.index(sub_step.phase):
            raise DefinitionError(f"{sub_step.key} has an edge from {edge.key}, which is of a later phase")


AnyDefinition = Definition[Any, Any]


CompensateOn = Literal["failed", "cancelled"]
"""The ends of a job before which what has completed is undone."""


def _ends(given: Iterable[CompensateOn], workflow: str) -> list[CompensateOn]:
    ends: list[Any] = [given] if isinstance(given, str) else list(given)
    if unknown := [end for end in ends if end not in ("failed", "cancelled")]:
        raise DefinitionError(f"workflow {workflow}: compensate_on={unknown} is neither 'failed' nor 'cancelled'")
    return sorted(set(ends))


def _waiting(payload: Any) -> Callable[[], Any]:
    """What stands in for the handler of a sub-step that only waits."""

    def wait() -> Any:
        raise TypeError("this sub-step waits: there is nothing to call")

    wait.__annotations__ = {"return": payload}
    return wait


def _check_context(kind: type[Context], workflow: str) -> None:
    """A job begins with the context that its type makes of nothing."""
    try:
        kind()
    except ValidationError as error:
        fields = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
        raise DefinitionError(f"workflow {workflow}: every field of its context needs a default: {fields}") from error


def _named(name: object, what: str) -> str:
    try:
        return check_name(name, what)
    except PayloadRefused as error:
        raise DefinitionError(str(error)) from error
