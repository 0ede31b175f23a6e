"""Running handlers: one attempt each, async on the loop or plain in a thread, and what became of it as a fact.

Whatever a handler does, exactly one outcome of it is posted; a handler cannot stop the runner.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from steplog.engine import facts as fact
from steplog.engine.context import Context, Fields, changes, fields_of, open_draft
from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.errors import AttemptOver, HandlerTimeout
from steplog.engine.facts import AttemptId, Fact
from steplog.engine.inbox import Inbox
from steplog.engine.policies import Retry, Skip
from steplog.engine.resources import open_async, open_plain
from steplog.engine.step import Step
from steplog.engine.values import dump, load
from steplog.eventstore.clock import Clock
from steplog.eventstore.codec import decode, encode, escape
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.limits import (
    ENVELOPE_BYTES_MAX,
    ERROR_MESSAGE_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    TRACEBACK_CHARS_MAX,
)
from steplog.projections.plan import Key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State

_PROGRESS_EVERY_S = 1.0

ENDING_S_MAX = 1.0
"""How long an async handler may take to clean up once it is cancelled."""

logger = logging.getLogger("steplog.engine")


class Attempts:
    """The attempts of one job that are running in this process."""

    def __init__(self, definition: AnyDefinition, inbox: Inbox, input: Any, clock: Clock, grace_s: float) -> None:
        self._definition = definition
        self._inbox = inbox
        self._input = input
        self._clock = clock
        self._grace_s = grace_s
        self._supervisors: dict[_Channel, asyncio.Task[None]] = {}
        self.occupied: set[Key] = set()
        """Sub-steps whose attempt was timed out and whose handler is still running."""
        self.stuck: set[Key] = set()
        """Those that have outlived the grace period too."""

    def start(self, of: AttemptId, state: State, timeout_s: float | None) -> None:
        """Call the handler of an attempt whose start is durable."""
        channel = _Channel(of, self._inbox, self._clock)
        call = _Call(of, self._definition.sub_steps[of.key], state, self._definition, self._input, channel)
        name = f"{of.key}#{of.attempt}"
        self._supervisors[channel] = asyncio.create_task(self._supervise(call, timeout_s), name=name)

    def cancel(self) -> None:
        """Ask every running handler to stop."""
        for channel in self._supervisors:
            channel.cancelled = True

    async def close(self) -> None:
        """Stop caring: async handlers are cancelled and given a moment, threads are left to end by themselves."""
        self.cancel()
        supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            supervisor.cancel()
        if supervisors:
            await asyncio.wait(supervisors, timeout=2 * ENDING_S_MAX)

    async def _supervise(self, call: _Call, timeout_s: float | None) -> None:
        try:
            if timeout_s is not None or not call.sub_step.bindings.is_async:
                await self._watch(call, timeout_s)
            elif (outcome := await call.run_async()) is not None:  # nothing to wait for beside it: no task of its own
                self._inbox.post(outcome)
        except Exception as error:  # no thread to run in, an exception nobody can look at
            of = call.of
            self._inbox.post(fact.Failed(of, error_data(error, self._retry(of).allows(error)), 0.0, random.random()))
        finally:
            del self._supervisors[call.channel]

    async def _watch(self, call: _Call, timeout_s: float | None) -> None:
        running = call.running()
        try:
            await asyncio.wait({running}, timeout=timeout_s)
            if not running.done():
                await self._time_out(call, running, timeout_s or 0.0)
        except asyncio.CancelledError:
            if _cancel(running):
                await asyncio.wait({running}, timeout=ENDING_S_MAX)
            raise
        finally:
            self._post_outcome(running)

    def _post_outcome(self, running: asyncio.Future[Fact | None]) -> None:
        if running.done() and not running.cancelled() and (outcome := running.result()) is not None:
            self._inbox.post(outcome)

    async def _time_out(self, call: _Call, running: asyncio.Future[Fact | None], timeout_s: float) -> None:
        """Record the timeout, then wait for the handler: a thread cannot be killed."""
        of = call.of
        timeout = HandlerTimeout(timeout_s)
        retryable = self._retry(of).allows(timeout)
        self.occupied.add(of.key)
        self._inbox.post(fact.Failed(of, error_data(timeout, retryable), timeout_s, random.random()))
        call.channel.end()
        _cancel(running)
        await asyncio.wait({running}, timeout=self._grace_s)
        if not running.done():
            self.stuck.add(of.key)
            self._inbox.wake()
            await asyncio.wait({running})
        self.occupied.discard(of.key)
        self.stuck.discard(of.key)
        self._inbox.wake()

    def _retry(self, of: AttemptId) -> Retry:
        retry: Retry = self._definition.sub_steps[of.key].options.retry
        return retry


@dataclass(slots=True)
class _Call:
    """One call of one handler."""

    of: AttemptId
    sub_step: AnySubStep
    state: State
    definition: AnyDefinition
    input: Any
    channel: _Channel

    def running(self) -> asyncio.Future[Fact | None]:
        """The call under way: a task, or a thread."""
        if self.sub_step.bindings.is_async:
            return asyncio.create_task(self.run_async())
        return _in_thread(self.run_plain, name=f"steplog-{self.of.key}")

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
            if isinstance(error, asyncio.CancelledError) and (self.channel.cancelled or _is_being_cancelled()):
                return None
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
        for name, marker in bindings.results.items():
            source = sub_step_of(self.state, marker.sub_step.key)
            if source["status"] == "completed":
                returns = self.definition.sub_steps[marker.sub_step.key].bindings.returns
                kwargs[name] = load(source["result"], returns)
            else:
                kwargs[name] = marker.default
        return ([self._step()] if bindings.wants_step else []), kwargs

    def _step(self) -> Step[Any, Any]:
        recorded = sub_step_of(self.state, self.of.key)
        kind = self.definition.context_type
        draft = open_draft(kind, self.state["context"], recorded["draft"])
        self.channel.follow(draft, fields_of(open_draft(kind, self.state["context"])))
        return Step(
            self.state["job_id"],
            self.input,
            draft,
            phase=self.of.phase,
            name=self.of.sub_step,
            attempt=self.of.attempt,
            generation=self.of.generation,
            idempotency_key=recorded["idempotency_key"] or "",
            cursor=load(recorded["cursor"], Any),
            channel=self.channel,
        )

    def _completed(self, value: Any, started: float) -> Fact:
        result, changed = dump(value, self.sub_step.bindings.returns, "result"), self.channel.changed()
        if result is not None or changed:
            _refuse_unrecordable({"result": result, "context_refused": changed}, "completion")
        return fact.Completed(self.of, result, changed, self._seconds_since(started))

    def _seconds_since(self, started: float) -> float:
        return self.channel.clock.monotonic() - started

    def _raised(self, error: BaseException, started: float) -> Fact:
        if isinstance(error, Skip):
            return fact.SkipRaised(self.of, message_of(error))
        retry: Retry = self.sub_step.options.retry
        retryable = retry.allows(error) and not isinstance(error, (PayloadRefused, AttemptOver))
        return fact.Failed(self.of, error_data(error, retryable), self._seconds_since(started), random.random())


class _OwnError:
    """What the handler itself raised: closing its resources may swallow that or raise something else over it."""

    error: BaseException | None = None

    def __call__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        self.error = error
        return False

    def raise_again(self) -> None:
        if self.error is not None:
            raise self.error


class _Channel:
    """An attempt's reports, from whichever thread its handler runs in."""

    def __init__(self, of: AttemptId, inbox: Inbox, clock: Clock) -> None:
        self.clock = clock
        self._of = of
        self._inbox = inbox
        self._draft: Context | None = None
        self._base: Fields = {}
        self._progressed_at = float("-inf")
        self._untold: fact.Progressed | None = None
        self._over = False
        self.cancelled = False
        """Whether the handler was asked to stop; until the attempt is over, what it reports is recorded."""

    def end(self) -> None:
        """The attempt was settled otherwise."""
        self.cancelled = self._over = True

    def follow(self, draft: Context, base: Fields) -> None:
        """The draft whose changes count, and the fields it is compared with."""
        self._draft, self._base = draft, base

    def changed(self) -> Fields:
        """What the attempt has set in the context so far."""
        return changes(self._base, fields_of(self._draft)) if self._draft is not None else {}

    def checkpoint(self, cursor: Any) -> Awaitable[None]:
        kept, changed = decode(encode(cursor, path="cursor")), self.changed()
        _refuse_unrecordable({"cursor": kept, "draft": {"set": changed}}, "checkpoint")
        if self._over:
            raise AttemptOver("the attempt was settled otherwise: its checkpoint is not recorded")
        if self._untold is not None:
            self._tell(self._untold)
        durable: Future[None] = Future()
        durable.set_running_or_notify_cancel()
        self._inbox.post(fact.CheckpointReached(self._of, kept, changed), durable)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            durable.result()
            return _Done()
        return asyncio.wrap_future(durable)

    def progress(self, done: float, total: float | None, note: str | None) -> None:
        numbers = {"done": done} if total is None else {"done": done, "total": total}
        for name, number in numbers.items():
            if type(number) not in (int, float):
                raise PayloadRefused(f"progress.{name}", f"{type(number).__qualname__} is no number")
        encode(numbers, path="progress")
        told = None if note is None else escape(note, ERROR_MESSAGE_CHARS_MAX)
        self._untold = fact.Progressed(self._of, done, total, told)
        if self.clock.monotonic() - self._progressed_at >= _PROGRESS_EVERY_S:
            self._tell(self._untold)

    def _tell(self, progressed: fact.Progressed) -> None:
        self._progressed_at = self.clock.monotonic()
        self._untold = None
        self._inbox.post(progressed)


class _Done(Awaitable[None]):
    """Already there."""

    def __await__(self) -> Any:
        return iter(())


def error_data(error: BaseException, retryable: bool) -> fact.ErrorData:
    """An exception as the log keeps it; always recordable, whatever the exception does."""
    return {
        "type": escape(type(error).__qualname__, ERROR_MESSAGE_CHARS_MAX),
        "message": message_of(error),
        "traceback": escape(_traceback(error), TRACEBACK_CHARS_MAX),
        "retryable": retryable,
    }


def message_of(error: BaseException) -> str:
    """What an exception says, as the log keeps it."""
    try:
        message = str(error)
    except BaseException as broken:  # an exception's own __str__ may raise anything
        message = f"(its message cannot be read: {type(broken).__name__})"
    return escape(message, ERROR_MESSAGE_CHARS_MAX)


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as broken:  # as in error_data
        return f"(its traceback cannot be read: {type(broken).__name__})"


def _refuse_unrecordable(values: Fields, what: str) -> None:
    """Refuse, while the handler can still be told, values that one event could not hold together."""
    encode(values, path=what, bytes_max=PAYLOAD_BYTES_MAX - ENVELOPE_BYTES_MAX)


def _cancel(running: asyncio.Future[Fact | None]) -> bool:
    """Cancel an async handler, and whether it is one: a thread cannot be, and its future must tell when it ends."""
    return isinstance(running, asyncio.Task) and running.cancel()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _in_thread(call: Callable[[], Fact | None], name: str) -> asyncio.Future[Fact | None]:
    """Run in a daemon thread of its own: a handler that never ends must not keep the process alive."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Fact | None] = loop.create_future()

    def finish(called: Future[Fact | None]) -> None:
        if ended.done():
            return
        if (error := called.exception()) is not None:
            ended.set_exception(error)
        else:
            ended.set_result(called.result())

    def body() -> None:
        called: Future[Fact | None] = Future()
        try:
            called.set_result(call())
        except BaseException as error:  # whatever it is, somebody waits for this thread
            called.set_exception(error)
        try:
            loop.call_soon_threadsafe(finish, called)
        except RuntimeError:
            logger.debug("%s ended after its run; the log says that it was interrupted", name)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(body,), name=name, daemon=True).start()
    return ended
