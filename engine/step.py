"""What a handler and a condition are given: the attempt it runs in, and the job it belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, Generic, Protocol

from pydantic import BaseModel
from typing_extensions import TypeVar

from steplog.engine.context import Context
from steplog.engine.policies import Cancelled


class NoInput(BaseModel, frozen=True, extra="forbid"):
    """The input of a workflow that declares none."""


I_co = TypeVar("I_co", covariant=True, default=Any)
C_co = TypeVar("C_co", bound=Context, covariant=True, default=Any)


class Job(Generic[I_co, C_co]):
    """A job as `when=` sees it: read-only."""

    def __init__(self, job_id: str, input: I_co, context: C_co) -> None:
        self._job_id = job_id
        self._input = input
        self._context = context

    @property
    def job_id(self) -> str:
        return self._job_id

    @property
    def input(self) -> I_co:
        """The validated input."""
        return self._input

    @property
    def context(self) -> C_co:
        """The context as of now."""
        return self._context


class AttemptChannel(Protocol):
    """Where an attempt's own reports go; the runner is behind it."""

    def checkpoint(self, cursor: Any) -> Awaitable[None]:
        """Record a cursor and the draft so far."""
        ...

    def progress(self, done: float, total: float | None, note: str | None) -> None:
        """Record how far the attempt is."""

    def log(self, lines: Iterable[str]) -> None:
        """Record lines of the attempt."""

    @property
    def cancelled(self) -> bool:
        """Whether the attempt's outcome no longer counts or the worker stops."""
        ...


class Step(Job[I_co, C_co]):
    """One attempt of a sub-step, as its handler sees it."""

    def __init__(
        self,
        job_id: str,
        input: I_co,
        context: C_co,
        *,
        phase: str,
        name: str,
        attempt: int,
        generation: int,
        idempotency_key: str,
        cursor: Any,
        channel: AttemptChannel,
        item: str | None = None,
    ) -> None:
        super().__init__(job_id, input, context)
        self.phase = phase
        self.name = name
        self.item = item
        """The item's key, in a fan-out."""
        self.attempt = attempt
        self.generation = generation
        self.idempotency_key = idempotency_key
        self.cursor = cursor
        """What the last checkpoint of this generation said, None before the first."""
        self._channel = channel

    @property
    def context(self) -> C_co:
        """This attempt's own draft: what is changed in it is recorded with the completion."""
        return self._context

    def checkpoint(self, cursor: Any) -> Awaitable[None]:
        """Record where the next attempt may go on, with the context draft so far.

        Durable when it returns in a plain handler, once awaited in an async one. `cursor` is plain JSON.
        Raises PayloadRefused, and AttemptOver where the attempt was settled otherwise.
        """
        self.cursor = cursor
        return self._channel.checkpoint(cursor)

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far the attempt is; recorded with each checkpoint, and otherwise about once a second."""
        self._channel.progress(done, total, note)

    def log(self, *lines: str) -> None:
        """Keep lines with the attempt, whatever becomes of it; recorded about once a second and at its end.

        They are bounded: behind the last that fits, one line says how many were dropped.
        """
        self._channel.log(lines)

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should stop: it is settled (timed out, late, by hand), its job or its worker is stopping.

        A handler that returns has completed, cancelled or not: its effect has happened. One that stops half-way calls
        `raise_if_cancelled`.
        """
        return self._channel.cancelled

    def raise_if_cancelled(self) -> None:
        """Stop here if the attempt should stop: it then counts as interrupted, neither completed nor failed."""
        if self._channel.cancelled:
            raise Cancelled
