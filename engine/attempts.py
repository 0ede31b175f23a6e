"""Running handlers: one attempt each, async on the loop or plain in a thread, and what became of it as a fact.

Whatever a handler does, exactly one outcome of it is posted; a handler cannot stop the runner.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from steplog.engine import facts as fact
from steplog.engine import threads
from steplog.engine.channel import Channel, refuse_unrecordable
from steplog.engine.context import fields_of, open_draft
from steplog.engine.deciding.draft import state_of
from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.errors import AttemptOver, ContextReadOnly, HandlerTimeout
from steplog.engine.facts import AttemptId, Fact
from steplog.engine.inbox import Inbox
from steplog.engine.observing import Watch
from steplog.engine.policies import Cancelled, Retry, Skip
from steplog.engine.resources import open_async, open_plain
from steplog.engine.step import Step
from steplog.engine.transaction import Transaction
from steplog.engine.transactional import TransactionalAttempt
from steplog.engine.values import dump, load
from steplog.engine.vault import Vault
from steplog.eventstore.clock import Clock
from steplog.eventstore.codec import escape
from steplog.eventstore.errors import PayloadRefused, TransactionEnded
from steplog.eventstore.limits import ERROR_MESSAGE_CHARS_MAX, TRACEBACK_CHARS_MAX
from steplog.projections.fan_out import results_of
from steplog.projections.plan import Place
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State

Scrub = Callable[[str], str]
"""Takes known secrets out of a text."""

UNDOING = "#undo"
"""What the name of an attempt's task says of a compensation."""

_LOST_MAX = 3
"""How many transactions of a sub-step may be lost with their connection before that counts as its failure."""

_NEVER_RETRIED = (PayloadRefused, AttemptOver, TransactionEnded, ContextReadOnly)
"""What would come out the same, or has had its effect already."""

ENDING_S_MAX = 1.0
"""How long an async handler may take to clean up once it is cancelled."""

logger = logging.getLogger("steplog.engine")


class Attempts:
    """The attempts of one job that are running in this process."""

    def __init__(
        self,
        definition: AnyDefinition,
        inbox: Inbox,
        input: Any,
        vault: Vault,
        clock: Clock,
        grace_s: float,
        watch: Watch,
        transactional: Callable[[float | None], TransactionalAttempt],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._definition = definition
        self._inbox = inbox
        self._input = input
        self._vault = vault
        self._clock = clock
        self._grace_s = grace_s
        self._watched_by = watch
        self._transactional = transactional
        self._lost: Counter[Place] = Counter()
        self._running: dict[Channel, _Running] = {}
        self.occupied: set[Place] = set()
        """Sub-steps whose attempt was settled otherwise and whose handler is still running."""
        self.stuck: set[Place] = set()
        """Those that have outlived the grace period too."""

    def start(self, of: AttemptId, state: State, timeout_s: float | None) -> None:
        """Call the handler of an attempt whose start is durable."""
        channel = Channel(of, self._inbox, self._clock, self._vault.of_attempt())
        call = _Call(of, self._called(of), state, self._definition, self._input, channel)
        name = f"{of.key}{UNDOING if of.undoing else ''}#{of.attempt}"
        within = self._watched_by.context_of(of)
        supervisor = self._loop.create_task(self._supervise(call, timeout_s), name=name, context=within)
        self._running[channel] = _Running(supervisor, supervisor.cancel)

    def _called(self, of: AttemptId) -> AnySubStep:
        """What is called: the sub-step's handler, or that of its compensation."""
        sub_step: AnySubStep = self._definition.sub_steps[of.key]
        undo = sub_step.undo if of.undoing else sub_step
        assert undo is not None, of
        return undo

    def cancel(self) -> None:
        """Ask every running handler to stop."""
        for channel in self._running:
            channel.cancelled = True

    def cancel_all(self) -> None:
        """Ask every running handler to stop, and interrupt those that are async."""
        self.cancel()
        for channel, running in self._running.items():
            if self._called(channel.of).bindings.is_async:
                running.interrupt()

    def abandon_all_but(self, going: Collection[AttemptId]) -> None:
        """Stop attempts that a person settled: what their handlers still say comes late."""
        left = set(going)
        for channel in self._running:
            if channel.of not in left:
                self._abandon(channel)

    def abandon(self, of: AttemptId) -> None:
        """Stop that attempt, if its handler still runs: it has been settled."""
        for channel in self._running:
            if channel.of == of:
                self._abandon(channel)

    def _abandon(self, channel: Channel) -> None:
        if not channel.is_over:
            self._set_aside(channel)
            self._running[channel].interrupt()

    @property
    def are_running(self) -> bool:
        """Whether any handler still runs."""
        return bool(self._running)

    def _set_aside(self, channel: Channel) -> None:
        """The attempt is settled and its handler still runs: until it ends its sub-step cannot start again."""
        channel.end()
        self.occupied.add(channel.of.place)
        self._loop.call_later(self._grace_s, self._count_as_stuck, channel)

    def _count_as_stuck(self, channel: Channel) -> None:
        """Say that the handler takes too long to end, if it has not."""
        if channel in self._running:
            self.stuck.add(channel.of.place)
            self._inbox.wake()

    def end_transactions(self) -> None:
        """Roll back what transactional handlers have not brought to their end: others may be waiting for that."""
        for channel, running in self._running.items():
            if channel.commit is not None:
                running.supervisor.cancel()

    async def close(self) -> None:
        """Stop caring: async handlers are cancelled and given a moment, threads are left to end by themselves."""
        self.cancel()
        supervisors = [running.supervisor for running in self._running.values()]
        for channel in self._running:
            channel.flush()
        for supervisor in supervisors:
            supervisor.cancel()
        if supervisors:
            await asyncio.wait(supervisors, timeout=2 * ENDING_S_MAX)

    async def _supervise(self, call: _Call, timeout_s: float | None) -> None:
        try:
            if call.is_transactional:
                await self._transact(call, timeout_s)
            elif timeout_s is not None or not call.sub_step.bindings.is_async:
                await self._watch(call, timeout_s)
            elif (outcome := await call.run_async()) is not None:  # nothing to wait for beside it: no task of its own
                self._inbox.post(outcome)
        except Exception as error:  # no thread to run in, an exception nobody can look at
            self._inbox.post(call.failed(error, 0.0))
        finally:
            del self._running[call.channel]
            if call.channel.cancelled:
                self.occupied.discard(call.of.place)
                self.stuck.discard(call.of.place)
                self._inbox.wake()

    async def _watch(self, call: _Call, timeout_s: float | None) -> None:
        running = call.running()
        self._running[call.channel].interrupt = partial(_cancel, running)
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

    async def _transact(self, call: _Call, timeout_s: float | None) -> None:
        """The same for a transactional handler: where it completed, that is recorded by its transaction or not at all.

        What it does after its attempt was settled otherwise has no effect, so no late outcome tells of it.
        """
        attempt = self._transactional(timeout_s)
        call.transaction = attempt.transaction
        call.channel.commit = partial(self._commit_checkpoint, attempt)
        self._running[call.channel].interrupt = attempt.expire
        try:
            async with attempt:
                running = threads.in_thread(lambda: attempt.run(call.run_plain), name=f"steplog-{call.of.key}")
                if await attempt.ends(running):
                    await self._end_transaction(call, attempt, running.result())
                    return
            await self._time_out(call, running, attempt.limit_s)
        finally:
            self.occupied.discard(call.of.place)
            self._inbox.wake()

    def _commit_checkpoint(self, attempt: TransactionalAttempt, reached: fact.CheckpointReached) -> None:
        """In the handler's thread: should the commit be lost, no other attempt begins before this handler has ended."""
        self.occupied.add(reached.of.place)
        attempt.checkpoint(reached)
        self.occupied.discard(reached.of.place)

    async def _end_transaction(self, call: _Call, attempt: TransactionalAttempt, outcome: Fact | None) -> None:
        place = call.of.place
        if isinstance(outcome, fact.Completed):
            await attempt.record(outcome)
        elif attempt.is_lost and self._lost[place] < _LOST_MAX:
            self._lost[place] += 1
            self._inbox.post(attempt.recorder.interruption(call.of))
        elif outcome is not None:
            self._inbox.post(outcome)

    def _post_outcome(self, running: asyncio.Future[Fact | None]) -> None:
        if running.done() and not running.cancelled() and (outcome := running.result()) is not None:
            self._inbox.post(outcome)

    async def _time_out(self, call: _Call, running: asyncio.Future[Fact | None], timeout_s: float) -> None:
        """Record the timeout, unless it was settled before, and wait for the handler: a thread cannot be killed."""
        if not call.channel.is_over:
            call.channel.flush()
            self._inbox.post(call.failed(HandlerTimeout(timeout_s), timeout_s))
            self._set_aside(call.channel)
        _cancel(running)
        await asyncio.wait({running})


@dataclass(slots=True)
class _Running:
    """An attempt under way."""

    supervisor: asyncio.Task[None]
    interrupt: Callable[[], object]
    """Stops the handler without giving it up, as far as that can be."""


@dataclass(slots=True)
class _Call:
    """One call of one handler."""

    of: AttemptId
    sub_step: AnySubStep
    state: State
    definition: AnyDefinition
    input: Any
    channel: Channel
    transaction: Transaction | None = None

    def running(self) -> asyncio.Future[Fact | None]:
        """The call under way: a task, or a thread."""
        if self.sub_step.bindings.is_async:
            return asyncio.create_task(self.run_async())
        return threads.in_thread(self.run_plain, name=f"steplog-{self.of.key}")

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
        if bindings.transaction is not None:
            kwargs[bindings.transaction] = self.transaction
        for name, marker in bindings.results.items():
            source = sub_step_of(self.state, marker.sub_step.key)
            if source["status"] == "completed":
                returns = self.definition.sub_steps[marker.sub_step.key].returns
                kwargs[name] = load(results_of(source), returns, self.channel.vault)
            else:
                kwargs[name] = marker.default
        of_item = [] if self.of.item is None else [load(self._input_of_item(), bindings.item, self.channel.vault)]
        return [*of_item, *([self._step()] if bindings.wants_step else [])], kwargs

    def _input_of_item(self) -> Any:
        items = sub_step_of(self.state, self.of.key)["items"]
        assert items is not None, self.of
        assert self.of.item is not None, self.of
        return items["inputs"][items["places"][self.of.item]]

    def _step(self) -> Step[Any, Any]:
        recorded: Any = state_of(self.state, self.of)
        if self.of.undoing:
            recorded = {"draft": None, "cursor": None, **(recorded["compensation"] or {})}
        kind, vault = self.definition.context_type, self.channel.vault
        draft = open_draft(kind, self.state["context"], recorded["draft"], vault=vault)
        self.channel.follow(draft, fields_of(open_draft(kind, self.state["context"], vault=vault), vault))
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


def _cancel(running: asyncio.Future[Fact | None]) -> bool:
    """Cancel an async handler, and whether it is one: a thread cannot be, and its future must tell when it ends."""
    return isinstance(running, asyncio.Task) and running.cancel()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
