"""A worker's process as far as a test needs one: a loop on the virtual clock that can be killed at any append.

What a killed process was doing is dropped as it is: no handler of it goes on, or cleans up, before it is buried. What
it had appended stays in the store, what it had open there is undone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple, cast

from steplog.engine.attempts import UNDOING
from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.jobs import prepare, recorded_input
from steplog.engine.listing import key_of_item
from steplog.engine.runner import Owned, Runner
from steplog.engine.vault import new_vault
from steplog.engine.worker import Worker
from steplog.eventstore.events import NewEvent
from steplog.eventstore.process_identity import own_identity
from steplog.eventstore.store import Answer, Append, Code, Store, StoreTransaction
from steplog.eventstore.writer import Item, Mailbox, Outcome, Writer
from steplog.projections.fan_out import attempts_in
from steplog.projections.plan import Key, Place, place_of, split_key
from steplog.projections.state import State
from steplog.testing.clock import VirtualClock
from steplog.testing.landing import Landing
from steplog.testing.loop import Deadlock, VirtualLoop
from steplog.testing.memory import MemoryStore
from steplog.testing.rewiring import Provider, rewired
from steplog.testing.threads import Killed, Threads, through_gate

T = TypeVar("T")
Args = TypeVarTuple("Args")

_ENDING_S_MAX = 10.0
_CANCELLED_TIMES_MAX = 5


class Fate:
    """Whether a process is killed, and where."""

    def kills_before(self, events: Sequence[NewEvent]) -> bool:
        """Whether it dies as it is about to append them."""
        return False

    def kills_after(self, events: Sequence[NewEvent]) -> bool:
        """Whether it dies as soon as they are durable. Asked of every append."""
        return False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the processes of a test have in common."""

    store: MemoryStore
    clock: VirtualClock
    replacements: Mapping[Provider, Any]
    """By provider, what handlers get in place of what it opens."""


class Process:
    """One worker, on one loop, with one job. Used in one thread; `bury` ends it."""

    def __init__(self, around: Surroundings, definition: AnyDefinition, fate: Fate) -> None:
        self.calls: Counter[Place] = Counter()
        """How often each handler was called."""
        self.is_dead = False
        store, clock = around.store, around.clock
        self._store = store
        self._fate = fate
        self._definition = rewired(definition, around.replacements, self._watched)
        self._threads = Threads()
        self._open: list[StoreTransaction] = []
        self._runner: Runner | None = None
        self._loop = _Loop(clock, self)
        self._landing = Landing(self._loop)
        self._worker = Worker(cast(Store, _StoreOfProcess(store, self)), clock=clock)
        self._worker.writer.close()
        self._worker.writer = _WritesAtOnce(store, self)
        store.register_worker(own_identity(self._worker.worker_id), self._worker.settings.lease_s)

    # --- its life ----------------------------------------------------------------------------------------------------

    def create_and_run(self, input: Any) -> str:
        """Run a new job of that input; its id. Raises Deadlock where a handler waits for ever."""
        vault = new_vault(self._worker.clock.new_id())
        owned, new_job = prepare(
            self._worker, self._definition, recorded_input(self._definition, input, vault), None, vault
        )

        async def main() -> State:
            await self._worker.outbox().create(new_job)
            vault.keep_in(self._store.data_keys)
            return await self._run(owned)

        self._live(main())
        return new_job.job_id

    def claim_and_run(self, job_id: str, resume_by: str | None = None) -> None:
        """Take the job over and run it on."""

        async def main() -> State:
            return await self._run(self._worker.claim(job_id, self._definition, resume_by=resume_by))

        self._live(main())

    async def _run(self, owned: Owned) -> State:
        self._runner = self._worker.runner(owned)
        return await self._runner.run()

    def _live(self, main: Coroutine[Any, Any, State]) -> None:
        task = self._loop.create_task(main, name="main")
        task.add_done_callback(self._stop)
        try:
            self._go_on()
        finally:
            task.remove_done_callback(self._stop)
        if self.is_dead:
            self._threads.await_standstill()
        else:
            task.result()

    def _go_on(self) -> None:
        try:
            self._loop.run_forever()
        except Deadlock:
            if self._runner is None or _runs_something(self._runner.state):
                raise
            self._runner.stop(0.0)  # the job waits for a signal, which nobody sends while it runs
            self._loop.run_forever()

    def _stop(self, main: asyncio.Task[State]) -> None:
        self._loop.stop()

    # --- its death ---------------------------------------------------------------------------------------------------

    def dies_before(self, events: Sequence[NewEvent]) -> bool:
        """Whether it is dead, so that they are not appended."""
        if not self.is_dead and self._fate.kills_before(events):
            self.die()
        return self.is_dead

    def dies_after(self, events: Sequence[NewEvent]) -> bool:
        """Whether it is dead, so that nobody in it hears of their being durable."""
        if not self.is_dead and self._fate.kills_after(events):
            self.die()
        return self.is_dead

    def die(self) -> None:
        """In the loop's thread: nothing of it goes on."""
        self.is_dead = True
        self._threads.die()
        self._landing.open()
        self._loop.stop()
        for transaction in self._open:
            transaction.roll_back()
        self._store.kill_worker(self._worker.worker_id)

    def bury(self) -> None:
        """Let whatever is left of it clean up, and end."""
        self._threads.bury()
        self._landing.open()
        if self.is_dead:
            self._loop.set_exception_handler(lambda loop, said: None)
        else:
            self._store.retire_worker(self._worker.worker_id)
        for _ in range(_CANCELLED_TIMES_MAX):  # a run whose first cancellation hands its job back waits for the store
            self._loop.let_go()
            if not (left := asyncio.all_tasks(self._loop)):
                break
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(left, timeout=_ENDING_S_MAX))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    # --- what runs in it ---------------------------------------------------------------------------------------------

    def is_awaited(self, files: int) -> bool:
        """Whether a handler's end, a plain handler, or a file that some handler has open is to be waited for."""
        if self._landing.let_one_through():
            return True
        return any(files or not sub_step.bindings.is_async for sub_step in self._sub_steps_running())

    def _sub_steps_running(self) -> list[AnySubStep]:
        """Those with an attempt that is not over: its task has their name."""
        names = [task.get_name().rpartition("#")[0] for task in asyncio.all_tasks(self._loop)]
        called = [self._called(name) for name in names]
        return [sub_step for sub_step in called if sub_step is not None]

    def _called(self, name: str) -> AnySubStep | None:
        """What a task of that name calls: a sub-step, or its compensation."""
        key = name.removesuffix(UNDOING)
        sub_step = self._definition.sub_steps.get(key)
        return sub_step.undo if sub_step is not None and key != name else sub_step

    def opened(self, transaction: StoreTransaction) -> StoreTransaction:
        """A handler's transaction, in the handler's thread."""
        self._open.append(transaction)
        if self.is_dead:
            transaction.roll_back()
        self._threads.stand_still_if_dead()
        return cast(StoreTransaction, _TransactionOfProcess(transaction, self))

    def _watched(self, key: Key, sub_step: AnySubStep) -> Callable[..., Any]:
        async def called(*args: Any, **kwargs: Any) -> Any:
            self.calls[_place(key, sub_step, args)] += 1
            try:
                return await sub_step.handler(*args, **kwargs)
            finally:
                await self._landing.wait()

        def called_in_thread(*args: Any, **kwargs: Any) -> Any:
            try:
                with self._threads.going(key):
                    self.calls[_place(key, sub_step, args)] += 1
                    if sub_step.bindings.wants_step:
                        through_gate(args[0 if sub_step.fan_out is None else 1], self._threads)
                    return sub_step.handler(*args, **kwargs)
            finally:
                self._landing.wait_in_thread()

        return called if sub_step.bindings.is_async else called_in_thread


def _place(key: Key, sub_step: AnySubStep, args: Sequence[Any]) -> Place:
    """Which handler is called; of a fan-out, for which item: that is its first argument."""
    if sub_step.fan_out is None:
        return key
    return place_of(*split_key(key), key_of_item(args[0], sub_step.fan_out.key))


def _runs_something(state: State) -> bool:
    return any(attempts_in(phase) for phase in state["phases"].values())


class _Loop(VirtualLoop):
    """Waits really for what the process says."""

    def __init__(self, clock: VirtualClock, process: Process) -> None:
        super().__init__(clock)
        self._process = process
        self._unheard: list[asyncio.Future[Any]] = []

    def is_awaited_outside(self, files: int) -> bool:
        return self._process.is_awaited(files)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
        try:
            return super().run_in_executor(executor, func, *args)
        except Killed:  # nobody hears of it
            self._unheard.append(self.create_future())
            return self._unheard[-1]

    def let_go(self) -> None:
        """Whoever still waits for what nobody hears of need not any more."""
        for unheard in self._unheard:
            unheard.cancel()


class _WritesAtOnce(Writer):
    """A writer without a thread and without a queue."""

    def __init__(self, store: MemoryStore, process: Process) -> None:
        self._memory = store
        self._process = process

    def offer(self, item: Item, mailbox: Mailbox) -> bool:
        if not self._process.dies_before(item.events):
            outcome = self._stored(item)
            is_stored = outcome.code is Code.STORED if isinstance(outcome, Answer) else isinstance(outcome, str)
            if not (is_stored and self._process.dies_after(item.events)):
                mailbox.deliver([(item, outcome)])
        return True

    def _stored(self, item: Item) -> Outcome:
        (outcome,) = self._memory.append([item]) if isinstance(item, Append) else self._memory.create_many([item])
        return outcome


class _StoreOfProcess:
    """The store, as the process reaches it."""

    def __init__(self, store: MemoryStore, process: Process) -> None:
        self._store = store
        self._process = process

    def begin(self, timeout_s: float | None = None) -> StoreTransaction:
        return self._process.opened(self._store.begin(timeout_s))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _TransactionOfProcess:
    """A handler's transaction: its commit is an append too."""

    def __init__(self, transaction: StoreTransaction, process: Process) -> None:
        self._transaction = transaction
        self._process = process
        self._appended: Sequence[NewEvent] = ()

    def append(self, item: Append) -> Answer:
        self._appended = item.events
        return self._transaction.append(item)

    def commit(self) -> None:
        if self._process.dies_before(self._appended):
            raise Killed
        self._transaction.commit()
        if self._process.dies_after(self._appended):
            raise Killed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)
