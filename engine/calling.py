"""One call of one handler, and what became of it as a fact. Whatever a handler does, exactly one outcome comes of it.

What a call is given of the job is plain JSON, whichever process it happens in: the types are the code's.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from steplog.engine import facts as fact
from steplog.engine.channel import Channel, refuse_unrecordable
from steplog.engine.context import fields_of, open_draft
from steplog.engine.deciding.draft import state_of
from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.errors import AttemptOver, ContextReadOnly
from steplog.engine.facts import AttemptId, Fact
from steplog.engine.policies import Cancelled, Retry, Skip
from steplog.engine.resources import open_async, open_plain
from steplog.engine.step import Step
from steplog.engine.transaction import Transaction
from steplog.engine.values import dump, load
from steplog.eventstore.codec import escape
from steplog.eventstore.errors import PayloadRefused, TransactionEnded
from steplog.eventstore.limits import ERROR_MESSAGE_CHARS_MAX, TRACEBACK_CHARS_MAX
from steplog.projections.fan_out import results_of
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State

Scrub = Callable[[str], str]
"""Takes known secrets out of a text."""

_NEVER_RETRIED = (PayloadRefused, AttemptOver, TransactionEnded, ContextReadOnly)
"""What would come out the same, or has had its effect already."""

_CANCELLED_BY_OTHERS = "the handler was cancelled, and not by steplog: by itself, or by code that it called"


class Given(NamedTuple):
    """What a call is given of its job, as plain JSON."""

    job_id: str
    input: Any
    context: dict[str, Any]
    draft: dict[str, Any] | None
    """What the last checkpoint had changed in it already."""
    cursor: Any
    idempotency_key: str
    results: dict[str, Any]
    """By parameter, the results of those sub-steps that have completed."""
    item: Any
    """The input of an item of a fan-out."""

    @classmethod
    def of(cls, state: State, sub_step: AnySubStep, of: AttemptId) -> Given:
        """What the state has for that attempt."""
        recorded: Any = state_of(state, of)
        if of.undoing:
            recorded = {"draft": None, "cursor": None, **(recorded["compensation"] or {})}
        sources = {name: sub_step_of(state, each.sub_step.key) for name, each in sub_step.bindings.results.items()}
        return cls(
            state["job_id"],
            state["input"],
            state["context"],
            recorded["draft"],
            recorded["cursor"],
            recorded["idempotency_key"] or "",
            {name: results_of(source) for name, source in sources.items() if source["status"] == "completed"},
            None if of.item is None else _input_of_item(state, of),
        )


def _input_of_item(state: State, of: AttemptId) -> Any:
    items = sub_step_of(state, of.key)["items"]
    assert items is not None, of
    assert of.item is not None, of
    return items["inputs"][items["places"][of.item]]


@dataclass(slots=True)
class Call:
    """One call of one handler."""

    of: AttemptId
    sub_step: AnySubStep
    given: Given
    definition: AnyDefinition
    input: Any
    channel: Channel
    transaction: Transaction | None = None

    async def run_async(self) -> Fact | None:
        started, own = self.channel.clock.monotonic(), _OwnError()
        try:
            args, kwargs = self._arguments()
            if resources := self.sub_step.bindings.resources:
                async with AsyncExitStack() as stack:
                    for name, resource in resources.items():
                        kwargs[name] = await open_async(resource.provider, stack)
                    stack.push(own)
                    value = await self.sub_step.handler(*args, **kwargs)
                own.raise_again()
            else:
                value = await self.sub_step.handler(*args, **kwargs)
            return self._completed(value, started)
        except BaseException as closing:  # a handler may raise anything, and anything it raises is its outcome
            error = own.error or closing
            if isinstance(error, asyncio.CancelledError):
                await _others_are_told()
                if self.channel.cancelled:
                    return None
                error = asyncio.CancelledError(_CANCELLED_BY_OTHERS).with_traceback(error.__traceback__)
            return self._raised(error, started)

    def run_plain(self) -> Fact | None:
        started, own = self.channel.clock.monotonic(), _OwnError()
        try:
            args, kwargs = self._arguments()
            with ExitStack() as stack:
                for name, resource in self.sub_step.bindings.resources.items():
                    kwargs[name] = open_plain(resource.provider, stack)
                stack.push(own)
                value = self.sub_step.handler(*args, **kwargs)
            own.raise_again()
            return self._completed(value, started)
        except BaseException as closing:  # as above; a thread that ended in SystemExit would say nothing
            return self._raised(own.error or closing, started)

    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        bindings = self.sub_step.bindings
        kwargs: dict[str, Any] = {}
        if bindings.transaction is not None:
            kwargs[bindings.transaction] = self.transaction
        for name, marker in bindings.results.items():
            if name in self.given.results:
                returns = self.definition.sub_steps[marker.sub_step.key].returns
                kwargs[name] = load(self.given.results[name], returns, self.channel.vault)
            else:
                kwargs[name] = marker.default
        of_item = [] if self.of.item is None else [load(self.given.item, bindings.item, self.channel.vault)]
        return [*of_item, *([self._step()] if bindings.wants_step else [])], kwargs

    def _step(self) -> Step[Any, Any]:
        kind, given, vault = self.definition.context_type, self.given, self.channel.vault
        draft = open_draft(kind, given.context, given.draft, vault=vault)
        self.channel.follow(draft, fields_of(open_draft(kind, given.context, vault=vault), vault))
        return Step(
            given.job_id,
            self.input,
            draft,
            phase=self.of.phase,
            name=self.of.sub_step,
            attempt=self.of.attempt,
            generation=self.of.generation,
            idempotency_key=given.idempotency_key,
            cursor=load(given.cursor, Any),
            item=self.of.item,
            channel=self.channel,
        )

    def _completed(self, value: Any, started: float) -> Fact:
        self.channel.flush()
        if self.of.undoing and self.channel.changed():
            raise ContextReadOnly(f"the compensation of {self.of.key} wrote {', '.join(self.channel.changed())}")
        returns, vault = self.sub_step.bindings.returns, self.channel.vault
        result, changed = dump(value, returns, "result", vault), self.channel.changed()
        if result is not None or changed:
            refuse_unrecordable({"result": result, "context_refused": changed}, "completion")
        return fact.Completed(self.of, result, changed, self._seconds_since(started))

    def _seconds_since(self, started: float) -> float:
        return self.channel.clock.monotonic() - started

    def _raised(self, error: BaseException, started: float) -> Fact | None:
        self.channel.flush()
        if isinstance(error, Cancelled) and self.channel.cancelled:
            return None
        if isinstance(error, Skip):
            return fact.SkipRaised(self.of, message_of(error, self.channel.scrub), self.is_transactional)
        return self.failed(error, self._seconds_since(started))

    def failed(self, error: BaseException, seconds: float) -> fact.Failed:
        """The attempt's failure by that error."""
        data = error_data(error, self.may_retry(error), self.channel.scrub)
        return fact.Failed(self.of, data, seconds, random.random(), self.is_transactional)

    @property
    def is_transactional(self) -> bool:
        """Whether nothing of the attempt is left unless its completion is committed with it."""
        return self.sub_step.bindings.transaction is not None

    def may_retry(self, error: BaseException) -> bool:
        """Whether the sub-step's policy has that error tried again."""
        retry: Retry = self.sub_step.options.retry
        return retry.allows(error) and not isinstance(error, _NEVER_RETRIED)


async def _others_are_told() -> None:
    """Who cancels every task of a loop has cancelled the job's run too, which then asks its handlers to stop."""
    for _ in range(3):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


class _OwnError:
    """What the handler itself raised: closing its resources may swallow that or raise something else over it."""

    error: BaseException | None = None

    def __call__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        self.error = error
        return False

    def raise_again(self) -> None:
        if self.error is not None:
            raise self.error


def error_data(error: BaseException, retryable: bool, scrub: Scrub) -> fact.ErrorData:
    """An exception as the log keeps it; always recordable, whatever the exception does."""
    return {
        "type": escape(scrub(type(error).__qualname__), ERROR_MESSAGE_CHARS_MAX),
        "message": message_of(error, scrub),
        "traceback": escape(scrub(_traceback(error)), TRACEBACK_CHARS_MAX),
        "retryable": retryable,
    }


def message_of(error: BaseException, scrub: Scrub) -> str:
    """What an exception says, as the log keeps it: without the secrets that `scrub` knows."""
    try:
        message = str(error)
    except BaseException as broken:  # an exception's own __str__ may raise anything
        message = f"(its message cannot be read: {type(broken).__name__})"
    return escape(scrub(message), ERROR_MESSAGE_CHARS_MAX)


def _traceback(error: BaseException) -> str:
    """From the handler's own frame on: how the engine came to call it says nothing."""
    try:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals is globals():
            frames = frames.tb_next
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as broken:  # as in error_data
        return f"(its traceback cannot be read: {type(broken).__name__})"
