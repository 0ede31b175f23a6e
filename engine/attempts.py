"""Running handlers: one attempt each, async on the loop or plain in a thread, and what became of it as a fact.

Whatever a handler does, exactly one outcome of it is posted; a handler cannot stop the runner.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from steplog.engine import facts as fact
from steplog.engine import threads
from steplog.engine.calling import Call, Given
from steplog.engine.channel import Channel
from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.errors import HandlerTimeout
from steplog.engine.facts import AttemptId, Fact
from steplog.engine.inbox import Inbox
from steplog.engine.isolation.processes import HandlerProcess, Isolation
from steplog.engine.observing import Watch
from steplog.engine.transactional import Lost, TransactionalAttempt
from steplog.engine.vault import Vault
from steplog.eventstore.clock import Clock
from steplog.eventstore.errors import OutcomeUnknown, StoreUnavailable
from steplog.projections.plan import Place
from steplog.projections.state import State

UNDOING = "#undo"
"""What the name of an attempt's task says of a compensation."""

_LOST_MAX = 3
"""How many transactions of a sub-step may be lost before their commit until that counts as its failure."""

_UNKNOWN_MAX = 10
"""The same for those whose commit was sent and is not stored: most often nothing is wrong with the sub-step."""

ENDING_S_MAX = 1.0
"""How long an async handler may take to clean up once it is cancelled."""

BEGINNING_S_MAX = 60.0
"""How long the process of a handler may take to import its code."""

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
        transactional: Callable[[float | None, Lost], TransactionalAttempt],
        isolation: Isolation,
        worker_id: str,
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
        self._isolation = isolation
        self._worker_id = worker_id
        self._lost: Counter[Place] = Counter()
        self._running: dict[Channel, _Running] = {}
        self._occupying: set[Channel] = set()
        self._stuck: set[Channel] = set()

    def start(self, of: AttemptId, state: State, timeout_s: float | None) -> None:
        """Call the handler of an attempt whose start is durable."""
        channel = Channel(of, self._inbox, self._clock, self._vault.of_attempt())
        sub_step = self._called(of)
        call = Call(of, sub_step, Given.of(state, sub_step, of), self._definition, self._input, channel)
        name = f"{of.key}{UNDOING if of.undoing else ''}#{of.attempt}"
        within = self._watched_by.context_of(of)
        supervisor = self._loop.create_task(self._supervise(call, timeout_s), name=name, context=within)
        supervisor.add_done_callback(lambda ended: self._leave(channel))  # one that never began comes by no finally
        process = HandlerProcess(call, self._isolation) if sub_step.options.isolate else None
        self._running[channel] = _Running(supervisor, process.interrupt if process else supervisor.cancel, process)

    def _called(self, of: AttemptId) -> AnySubStep:
        """What is called: the sub-step's handler, or that of its compensation."""
        sub_step: AnySubStep = self._definition.sub_steps[of.key]
        undo = sub_step.undo if of.undoing else sub_step
        assert undo is not None, of
        return undo

    def cancel(self) -> None:
        """Ask every running handler to stop."""
        for channel in self._running:
            channel.cancel()

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
    def occupied(self) -> set[Place]:
        """Sub-steps whose attempt was settled otherwise, or may be, and whose handler is still running."""
        return {channel.of.place for channel in tuple(self._occupying)}  # a handler's thread may change it meanwhile

    @property
    def stuck(self) -> set[Place]:
        """Those that have outlived the grace period too."""
        return {channel.of.place for channel in self._stuck}

    @property
    def are_running(self) -> bool:
        """Whether any handler still runs."""
        return bool(self._running)

    def _set_aside(self, channel: Channel) -> None:
        """The attempt is settled and its handler still runs: until it ends its sub-step cannot start again.

        A process can be killed, so nothing waits for that: when the grace period is over, or the next attempt begins.
        """
        channel.end()
        if (process := self._running[channel].process) is not None:
            self._loop.call_later(self._grace_s, process.kill)
            return
        self._occupying.add(channel)
        self._loop.call_later(self._grace_s, self._count_as_stuck, channel)

    def _count_as_stuck(self, channel: Channel) -> None:
        """Say that the handler takes too long to end, if it has not."""
        if channel in self._running:
            self._stuck.add(channel)
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

    async def _supervise(self, call: Call, timeout_s: float | None) -> None:
        try:
            if call.is_transactional:
                await self._transact(call, timeout_s)
            elif (process := self._running[call.channel].process) is not None:
                await self._isolate(call, process, timeout_s)
            elif timeout_s is not None or not call.sub_step.bindings.is_async:
                await self._watch(call, timeout_s)
            else:  # nothing to wait for beside it: no task of its own
                await self._call(call)
        except Exception as error:  # no thread to run in, an exception nobody can look at
            self._inbox.post(call.failed(error, 0.0))

    def _leave(self, channel: Channel) -> None:
        """The attempt's handler runs no more, or never did."""
        del self._running[channel]
        self._stuck.discard(channel)
        self._occupying.discard(channel)
        if channel.cancelled:
            self._inbox.wake()

    async def _call(self, call: Call) -> None:
        """Call an async handler and post its outcome: no task that was cancelled meanwhile has a result."""
        if (outcome := await call.run_async()) is not None:
            self._inbox.post(outcome)

    def _called_now(self, call: Call) -> asyncio.Future[Any]:
        """The call under way: a task, or a thread."""
        if call.sub_step.bindings.is_async:
            return self._loop.create_task(self._call(call))
        return threads.in_thread(call.run_plain, name=f"steplog-{call.of.key}")

    async def _watch(self, call: Call, timeout_s: float | None) -> None:
        running = self._called_now(call)
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

    async def _isolate(self, call: Call, process: HandlerProcess, timeout_s: float | None) -> None:
        """The same for a handler in a process of its own, which does not outlive this."""
        await self._end_former(call.channel)
        if call.channel.is_over:
            return
        running = self._loop.create_task(process.run())
        try:
            await asyncio.wait({process.called}, timeout=BEGINNING_S_MAX)
            if not process.called.done():
                raise TimeoutError(f"the handler's process took longer than {BEGINNING_S_MAX:g} s to import its code")
            await asyncio.wait({running}, timeout=timeout_s)
            if not running.done():
                self._settle_late(call, timeout_s or 0.0)
                process.interrupt()
                await asyncio.wait({running})
        except asyncio.CancelledError:
            process.interrupt()
            await asyncio.wait({running}, timeout=ENDING_S_MAX)
            raise
        finally:
            process.kill()
            await asyncio.wait({running})
            self._post_outcome(running)

    async def _end_former(self, channel: Channel) -> None:
        """Kill what is left of an attempt that was settled before: no two of a sub-step run at once."""
        for other, running in list(self._running.items()):
            if other is not channel and other.of.place == channel.of.place and running.process is not None:
                running.process.kill()
                await asyncio.wait({running.supervisor})

    async def _transact(self, call: Call, timeout_s: float | None) -> None:
        """The same for a transactional handler: where it completed, that is recorded by its transaction or not at all.

        What it does after its attempt was settled otherwise has no effect, so no late outcome tells of it.
        """
        attempt = self._transactional(timeout_s, partial(self._lost_by, call))
        call.transaction = attempt.transaction
        call.channel.commit = partial(self._commit_checkpoint, attempt, call.channel)
        self._running[call.channel].interrupt = attempt.expire
        try:
            async with attempt:
                running = threads.in_thread(lambda: attempt.run(call.run_plain), name=f"steplog-{call.of.key}")
                if await attempt.ends(running):
                    await self._end_transaction(call, attempt, running.result())
                    return
            await self._time_out(call, running, attempt.limit_s)
        finally:
            self._occupying.discard(call.channel)
            self._inbox.wake()

    def _commit_checkpoint(
        self, attempt: TransactionalAttempt, channel: Channel, reached: fact.CheckpointReached
    ) -> None:
        """In the handler's thread: should the commit be lost, no other attempt begins before this handler has ended."""
        self._occupying.add(channel)
        attempt.checkpoint(reached)
        self._occupying.discard(channel)

    async def _end_transaction(self, call: Call, attempt: TransactionalAttempt, outcome: Fact | None) -> None:
        if isinstance(outcome, fact.Completed):
            await attempt.record(outcome)
        elif attempt.is_lost and self._may_be_lost(call.of.place, _LOST_MAX):
            self._inbox.post(fact.CommitUnknown(call.of, self._worker_id))
        elif outcome is not None:
            self._inbox.post(outcome)

    def _lost_by(self, call: Call, error: StoreUnavailable) -> Fact:
        """What is recorded where the transaction of a handler that completed is lost: too often, and it has failed."""
        if self._may_be_lost(call.of.place, _UNKNOWN_MAX if isinstance(error, OutcomeUnknown) else _LOST_MAX):
            return fact.CommitUnknown(call.of, self._worker_id)
        return call.failed(error, 0.0)

    def _may_be_lost(self, place: Place, times: int) -> bool:
        self._lost[place] += 1
        return self._lost[place] <= times

    def _post_outcome(self, running: asyncio.Future[Fact | None]) -> None:
        if running.done() and not running.cancelled() and (outcome := running.result()) is not None:
            self._inbox.post(outcome)

    async def _time_out(self, call: Call, running: asyncio.Future[Fact | None], timeout_s: float) -> None:
        """Record the timeout, unless it was settled before, and wait for the handler: a thread cannot be killed."""
        self._settle_late(call, timeout_s)
        _cancel(running)
        await asyncio.wait({running})

    def _settle_late(self, call: Call, timeout_s: float) -> None:
        if not call.channel.is_over:
            call.channel.flush()
            self._inbox.post(call.failed(HandlerTimeout(timeout_s), timeout_s))
            self._set_aside(call.channel)


@dataclass(slots=True)
class _Running:
    """An attempt under way."""

    supervisor: asyncio.Task[None]
    interrupt: Callable[[], object]
    """Stops the handler without giving it up, as far as that can be."""
    process: HandlerProcess | None = None


def _cancel(running: asyncio.Future[Fact | None]) -> bool:
    """Cancel an async handler, and whether it is one: a thread cannot be, and its future must tell when it ends."""
    return isinstance(running, asyncio.Task) and running.cancel()
