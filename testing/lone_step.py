"""An attempt without an engine, for unit tests of a handler: it keeps what the handler reports."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Iterable
from typing import Any, overload

from typing_extensions import TypeVar

from steplog.engine.context import Context
from steplog.engine.jobs import recorded_input
from steplog.engine.step import NoInput, Step
from steplog.engine.values import load
from steplog.engine.vault import InClear
from steplog.engine.workflow import Workflow
from steplog.eventstore.codec import decode, encode

I = TypeVar("I", default=NoInput)  # noqa: E741  # the field's usual letter for an input type
C = TypeVar("C", bound=Context, default=Context)


class LoneStep(Step[I, C]):
    """What `step(…)` makes. Its context is the draft that the handler writes on."""

    def __init__(self, input: I, context: C, reports: Reports, attempt: int, cursor: Any, key: str) -> None:
        super().__init__(
            "job",
            input,
            context,
            phase="main",
            name="step",
            attempt=attempt,
            generation=1,
            idempotency_key=key,
            cursor=cursor,
            channel=reports,
        )
        self.reports = reports


class Reports:
    """What a handler has reported, in order."""

    def __init__(self, cancelled: bool) -> None:
        self.checkpoints: list[Any] = []
        """The cursors."""
        self.progress_made: list[tuple[float, float | None, str | None]] = []
        """Done, total, note."""
        self.lines: list[str] = []
        self.cancelled = cancelled

    def checkpoint(self, cursor: Any) -> Awaitable[None]:
        self.checkpoints.append(decode(encode(cursor, path="cursor")))
        return _Done()

    def progress(self, done: float, total: float | None, note: str | None) -> None:
        self.progress_made.append((done, total, note))

    def log(self, lines: Iterable[str]) -> None:
        self.lines += lines


@overload
def step(
    workflow: Workflow[NoInput, C],
    input: NoInput | None = None,
    *,
    context: C | None = None,
    attempt: int = 1,
    cursor: Any = None,
    idempotency_key: str = "key",
    cancelled: bool = False,
) -> LoneStep[NoInput, C]: ...
@overload
def step(
    workflow: Workflow[I, C],
    input: I,
    *,
    context: C | None = None,
    attempt: int = 1,
    cursor: Any = None,
    idempotency_key: str = "key",
    cancelled: bool = False,
) -> LoneStep[I, C]: ...
def step(
    workflow: Workflow[Any, Any],
    input: Any = None,
    *,
    context: Any = None,
    attempt: int = 1,
    cursor: Any = None,
    idempotency_key: str = "key",
    cancelled: bool = False,
) -> Any:
    """A step to call one of the workflow's handlers with. Raises InputRefused."""
    given = load(recorded_input(workflow, input, InClear()), workflow.input_type, InClear())
    draft = workflow.context_type() if context is None else context
    return LoneStep(given, draft, Reports(cancelled), attempt, cursor, idempotency_key)


class _Done(Awaitable[None]):
    def __await__(self) -> Generator[Any, None, None]:
        return
        yield
