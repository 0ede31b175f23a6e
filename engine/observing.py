"""Watching jobs run in this process: who watches is told what became durable, and is never asked.

Whether anybody watches is seen by what is there: where the program has set up OpenTelemetry its spans are made
(`tracing.py`), elsewhere nothing of it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import Context
from types import TracebackType
from typing import Protocol, Self

from steplog.engine.definition import AnyDefinition
from steplog.engine.facts import AttemptId
from steplog.eventstore.events import EventData
from steplog.eventstore.store import Claim
from steplog.projections.state import State


class Watch(Protocol):
    """Watches one run of one job, on its event loop: entered when it begins, left when it ends. Raises nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The run is over; an error says that the job was lost or cannot be run."""

    def recorded(self, events: Sequence[EventData], state: State) -> None:
        """These events are durable, and that is the state after them; attempts that they start are called next."""

    def context_of(self, of: AttemptId) -> Context | None:
        """The context in which an attempt's handler is to be called; None for the runner's own."""


class _Nobody:
    """Nobody watches, which costs nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def recorded(self, events: Sequence[EventData], state: State) -> None:
        pass

    def context_of(self, of: AttemptId) -> Context | None:
        return None


_NOBODY = _Nobody()


def watch_of(definition: AnyDefinition, state: State, claim: Claim) -> Watch:
    """Who watches a run of that job."""
    if not _is_traced():
        return _NOBODY
    from steplog.engine.tracing import Spans

    return Spans(definition, state, claim)


def traceparent_of(definition: AnyDefinition) -> str | None:
    """Where a job that is about to be created comes from, in W3C form: what its first event keeps of it."""
    if not _is_traced():
        return None
    from steplog.engine.tracing import origin

    return origin(definition.name)


def _is_traced() -> bool:
    """Whether the program has given OpenTelemetry somewhere to send spans; one that never imported it has not."""
    api = sys.modules.get("opentelemetry.trace")
    nowhere = () if api is None else (api.ProxyTracerProvider, api.NoOpTracerProvider)
    return api is not None and not isinstance(api.get_tracer_provider(), nowhere)
