"""The world of one story: processes that come and go on one virtual loop, and a store that is hard to reach.

A process is everything that runs in one `contextvars` context. When it dies, nothing of it is ever called again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, cast

from simulation.handlers import Given, Shared, definition_of
from simulation.notes import Forked, Life, Notes, Stored
from simulation.operators import WHO, Action
from simulation.story import (
    AppendFault,
    ClaimFault,
    Fault,
    Meanwhile,
    ReadFault,
    Story,
    TimeFault,
    TransactionFault,
    TurnFault,
)
from simulation.transacting import WAIT_S, Transacting
from simulation.turns import HandlerThread, current, taking_turns

from steplog.engine.claiming import claim_job
from steplog.engine.definition import Definition
from steplog.engine.errors import OwnershipLost
from steplog.engine.history import load
from steplog.engine.jobs import prepare, recorded_input
from steplog.engine.outbox import Outbox
from steplog.engine.runner import Owned, Runner
from steplog.engine.settings import Settings
from steplog.engine.worker import Worker
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import OutcomeUnknown, SteplogError, StoreError, StoreUnavailable
from steplog.eventstore.events import Event
from steplog.eventstore.store import Answer, Append, Claim, ClaimRule, Code, WorkerIdentity
from steplog.eventstore.writer import Mailbox, Writer
from steplog.projections.evolve import fold
from steplog.projections.state import ENDED, STOPPED, State
from steplog.testing.clock import VirtualClock
from steplog.testing.loop import Deadlock, VirtualLoop
from steplog.testing.memory import MemoryStore

SETTINGS = Settings(heartbeat_s=1.0, grace_s=3.0, interruptions_max=3, store_state_every=12)
LATENCY_S = 0.001
TURNS_MAX = 5_000
STOP_GRACE_S = 2.0
SIGNAL_EVERY_S = 15.0
"""How often somebody sends a signal that a sub-step waits for without a limit."""

_process: ContextVar[_Process] = ContextVar("process")


class NeverEnds(RuntimeError):
    """The job does not get on."""


class _Loop(VirtualLoop):
    def __init__(self, world: World) -> None:
        super().__init__(world.clock)
        self._world = world

    def turn(self) -> None:
        self._world.turn()

    def forget(self, process: _Process) -> None:
        """Call nothing of the process again."""
        inside = cast(Any, self)
        for handle in (*inside._ready, *inside._scheduled):
            if handle._context.get(_process) is process:
                handle.cancel()

    def clear(self) -> None:
        inside = cast(Any, self)
        inside._ready.clear()
        inside._scheduled.clear()


class World:
    """Runs a story; afterwards `notes` and `log` say what happened."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self.notes = Notes()
        self.job_id = ""
        self.loop = _Loop(self)
        self.definition: Definition[Given, Shared] = definition_of(story, self)
        self._turns = 0
        self.appends = 0
        self.claims = 0
        self.reads = 0
        self.transactions = 0
        self.effects = 0
        self.holder: Transacting | None = None
        """The transaction that holds the job's head, or the only place to write, where one does."""
        self._is_told = False
        self._by_hand = list(story.by_hand)
        self._resumes_left = story.resumes
        self._dying: list[_Process] = []
        self._remembered: set[asyncio.Task[Any]] = set()
        """Tasks of dead processes: collected early, they would run their `finally`."""
        self._owner: _Process | None = None
        self._processes: list[_Process] = []
        self._of_turn: dict[int, list[TurnFault]] = {}
        self._of_append: dict[int, AppendFault] = {}
        self._of_claim: dict[int, ClaimFault] = {}
        self._of_read: dict[int, ReadFault] = {}
        self._of_transaction: dict[int, TransactionFault] = {}
        for fault in story.faults:
            self._plan(fault)

    def _plan(self, fault: Fault) -> None:
        match fault:
            case TurnFault(turn=turn):
                self._of_turn.setdefault(turn, []).append(fault)
            case TimeFault(seconds=seconds, what=what, action=action):
                self.loop.call_later(seconds, lambda: self.happens(what, self._owner, action))
            case AppendFault(number=number):
                self._of_append.setdefault(number, fault)
            case ClaimFault(number=number):
                self._of_claim.setdefault(number, fault)
            case ReadFault(number=number):
                self._of_read.setdefault(number, fault)
            case TransactionFault(number=number):
                self._of_transaction.setdefault(number, fault)

    # --- the story ---------------------------------------------------------------------------------------------------

    def run(self) -> list[Event]:
        """The job's whole log, as a reader finds it."""
        random.seed(self.story.luck)  # the engine draws jitter from it
        self.loop.set_exception_handler(lambda loop, said: self.notes.unexpected.append(str(said)))
        with taking_turns() as threads:
            try:
                self.loop.run_until_complete(self._tell())
            except (Deadlock, NeverEnds) as stuck:
                self.notes.unexpected.append(f"liveness: {stuck}")
            finally:
                self._dispose(threads)
        return list(self.store.read(self.job_id))

    async def _tell(self) -> None:
        resume_by: str | None = None
        for signal in {wait.signal for _, step in self.story.sub_steps() if (wait := step.wait) and wait.signal}:
            self.loop.call_later(SIGNAL_EVERY_S, self._send, Action("signal", field=signal, value=1))
        while resume_by != "nobody":
            await self._until_free()
            process = self._owner = _Process(self, len(self.notes.lives) + 1)
            self._processes.append(process)
            process.start(resume_by)
            if await process.over == "crashed":
                await asyncio.sleep(self.story.recovery_s)
            resume_by = self._who_goes_on() if self.job_id else None
        self._is_told = True
        await asyncio.gather(*(process.gone for process in self._processes))  # the robbed ones find out

    async def _until_free(self) -> None:
        """Whoever wants the job waits for its head."""
        while self.holder is not None:  # noqa: ASYNC110 (a lock in a database tells nobody)
            await asyncio.sleep(WAIT_S)

    def _who_goes_on(self) -> str | None:
        """Who resumes the job: None where any process may take it, nobody where that is the end."""
        while (status := self._status()) in ENDED | STOPPED:
            if self._by_hand:
                self._operate(self._by_hand.pop(0))
            elif status in STOPPED and self._resumes_left:
                self._resumes_left -= 1
                self.notes.covered["resume"] += 1
                return WHO
            else:
                return "nobody"
        return None

    def _status(self) -> str:
        return self.store.head(self.job_id).columns.status

    def _send(self, action: Action) -> None:
        """Send a signal without which the job would not end."""
        if self._is_told:
            return
        if self.job_id and self._lacks_signal(action.field):
            self._operate(action)
        self.loop.call_later(SIGNAL_EVERY_S, self._send, action)

    def _lacks_signal(self, name: str) -> bool:
        state = fold(self.store.read(self.job_id))
        waits = [step["wait"] for phase in state["phases"].values() for step in phase["sub_steps"].values()]
        return any(wait and wait["signal"] == name and wait["until"] is None for wait in waits)

    def _dispose(self, threads: list[HandlerThread]) -> None:
        for task in {*asyncio.all_tasks(self.loop), *self._remembered}:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            for _ in range(8):
                with suppress(RuntimeError):  # the engine's clean-up awaits again: it is never to go on
                    cast(Any, task.get_coro()).close()
                    break
        for thread in threads:
            thread.unwind()
        threads.clear()
        self.loop.clear()
        self.loop.close()

    # --- what happens ------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Before each turn of the loop."""
        self._turns += 1
        if self._turns > TURNS_MAX:
            raise NeverEnds(f"the job is not through after {TURNS_MAX} turns of the loop")
        for fault in self._of_turn.pop(self._turns, ()):
            self.happens(fault.what, self._owner, fault.action)
        while self._dying:
            process = self._dying.pop()
            self._remembered |= asyncio.all_tasks(self.loop)
            self.loop.forget(process)

    def happens(self, what: Meanwhile, to: _Process | None, action: Action | None) -> None:
        """Let something happen to a process, or to the job, as long as the story goes on."""
        if self._is_told:
            return
        if what == "operator" and action is not None and self.job_id:
            self._operate(action)
        elif to is not None and to.is_owner:
            if what == "crash":
                to.die()
            elif what == "robbery":
                to.lose()
            elif what == "stop":
                to.stop()

    def _operate(self, action: Action) -> None:
        if self.holder is not None:  # people wait for the job's head, too
            self.loop.call_later(WAIT_S, self.happens, "operator", None, action)
            return
        before = self.version()
        try:
            appended = action.perform(self.store, self.clock, self.job_id, self.definition)
        except SteplogError:
            self.notes.covered["refused by hand"] += 1
            return
        self.notes.covered["operator"] += 1
        self.notes.covered[f"by hand: {action.kind}"] += 1
        if action.kind == "fork":
            log = list(self.store.read(appended.state["job_id"]))
            self.notes.forked.append(Forked(before, {action.field: action.value}, log))
        self.notes.by_hand += [event.event_id for event in self.store.read(self.job_id, before)]
        if self._owner is not None:
            self.loop.call_later(SETTINGS.heartbeat_s, self._owner.hear_of_versions)

    # --- handlers' transactions --------------------------------------------------------------------------------------

    def begin(self, process: _Process, timeout_s: float | None) -> Transacting:
        """For a handler of that process; a dead one has none."""
        if not process.is_alive:
            current().stand()
        self.transactions += 1
        fault = self._of_transaction.pop(self.transactions, None)
        alone = self.story.stops_writers
        process.opened.append(transaction := Transacting(cast(Any, _Database(self, process)), fault, timeout_s, alone))
        return transaction

    def next_effect(self) -> int:
        self.effects += 1
        return self.effects

    def bury(self, process: _Process) -> None:
        """Nothing of the process runs from the next turn on."""
        self._dying.append(process)

    def store_for(self, process: _Process, item: Append) -> Answer:
        """Let the store have a process's append."""
        before = self.version()
        (answer,) = self.store.append([item])
        if self.version() > before:
            event_ids = [event.event_id for event in item.events]
            self.notes.stored.append(Stored(process.life.number, item.claim.epoch, event_ids))
        elif answer.code is Code.STORED:
            self.notes.covered["stored before"] += 1
        else:
            self.notes.covered[answer.code] += 1
        return answer

    # --- what handlers see -------------------------------------------------------------------------------------------

    def process(self) -> int:
        return _process.get().life.number

    def now(self) -> float:
        return self.clock.monotonic()

    def version(self) -> int:
        return self.store.head(self.job_id).version

    def kill(self) -> None:
        _process.get().die()

    # --- faults by number --------------------------------------------------------------------------------------------

    def next_append(self) -> AppendFault | None:
        self.appends += 1
        return self._of_append.pop(self.appends, None)

    def next_claim(self) -> ClaimFault | None:
        self.claims += 1
        return self._of_claim.pop(self.claims, None)

    def next_read(self) -> ReadFault | None:
        self.reads += 1
        return self._of_read.pop(self.reads, None)


class _Process:
    """One process: it claims the job, runs it, and ends one way or another."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.clock = world.clock
        self.worker_id = world.clock.new_id()
        self.life = Life(number)
        self.over: asyncio.Future[str] = world.loop.create_future()
        """Done as soon as another process may take the job."""
        self.gone: asyncio.Future[None] = world.loop.create_future()
        self.inside = copy_context()
        """Where everything of it runs."""
        self._alive = True
        self._runner: Runner | None = None
        self.opened: list[Transacting] = []
        """The transactions of its handlers."""
        world.notes.lives.append(self.life)
        world.store.register_worker(WorkerIdentity(self.worker_id, "here", number, None, None, None), 15.0)

    @property
    def is_owner(self) -> bool:
        """Whether it is alive and may think that the job is its own."""
        return self._alive and self.life.robbed_at is None

    @property
    def is_alive(self) -> bool:
        return self._alive

    def start(self, resume_by: str | None) -> None:
        self.inside.run(_process.set, self)
        name = f"process {self.life.number}"
        task = self.world.loop.create_task(self._live(resume_by), name=name, context=self.inside)
        task.add_done_callback(self._ended)

    async def _live(self, resume_by: str | None) -> State:
        world, store = self.world, cast(Any, _Unreliable(self))
        owned = self._created() if not world.job_id else self._claimed(store, resume_by)
        self.life.epoch = owned.claim.epoch
        writer = cast(Writer, _Sender(self))
        self._runner = Runner(owned, store, Outbox(writer), self.clock, SETTINGS)
        return await self._runner.run()

    def _created(self) -> Owned:
        definition = self.world.definition
        owned, new_job = prepare(cast(Worker, self), definition, recorded_input(definition, None), None)
        self.world.job_id = self.world.store.create(new_job)
        return owned

    def first_claim(self) -> Claim:
        return Claim(self.worker_id, 1, self.clock.new_id())

    def _claimed(self, store: Any, resume_by: str | None) -> Owned:
        loaded, claim = claim_job(
            store, self.clock, self.worker_id, load(store, self.world.job_id), resume_by=resume_by
        )
        return Owned(loaded, claim, self.world.definition)

    # --- its end -----------------------------------------------------------------------------------------------------

    def die(self) -> None:
        """Its process is killed: nothing of it runs again."""
        if self._alive:
            self.world.notes.covered["crash"] += 1
            self._leave("crashed")
            for transaction in self.opened:
                transaction.roll_back()
            self.world.store.kill_worker(self.worker_id)

    def lose(self) -> None:
        """It counts as dead, and does not know it before it appends or its heart beats."""
        self.world.notes.covered["take-over of the living"] += 1
        self.life.robbed_at = self.world.loop.time()
        self.world.store.kill_worker(self.worker_id)
        self.over.set_result("robbed")
        self.world.loop.call_later(SETTINGS.heartbeat_s, self._hear_of_it)

    def stop(self) -> None:
        if self._runner is not None:
            self.world.notes.covered["stop"] += 1
            self.life.stopped_at = self.world.loop.time()
            self.world.loop.call_soon(self._runner.stop, STOP_GRACE_S, context=self.inside)

    def hear_of_versions(self) -> None:
        """Its heart beats: it sees how long the log is."""
        if self.is_owner and self._runner is not None:
            version = self.world.version()
            self.world.loop.call_soon(self._runner.look_again_from_thread, version, context=self.inside)

    def _hear_of_it(self) -> None:
        if self._alive and self._runner is not None:
            self.world.loop.call_soon(self._runner.lose_from_thread, "it was declared dead", context=self.inside)

    def _ended(self, task: asyncio.Task[State]) -> None:
        error = task.exception()
        if not self._alive:  # it was killed in the turn in which it ended
            return
        if error is None:
            self.life.state = task.result()
            self._leave("finished")
        elif isinstance(error, OwnershipLost):
            self._leave("lost")
        elif isinstance(error, StoreError):
            self._leave("left")
        else:
            self.world.notes.unexpected.append(f"process {self.life.number} ended with {error!r}")
            self._leave("left")
        self.world.store.retire_worker(self.worker_id)

    def _leave(self, how: Any) -> None:
        self._alive = False
        self.life.how = how
        self.life.ended_at = self.world.loop.time()
        self.world.bury(self)
        self.gone.set_result(None)
        if not self.over.done():
            self.over.set_result(how)


class _Unreliable:
    """The store as one process reaches it."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._world = process.world
        self.stops_writers = process.world.story.stops_writers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    def read(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Event]:
        if self._world.next_read():
            self._world.notes.covered["unreadable"] += 1
            self._world.loop.call_later(SETTINGS.heartbeat_s, self._process.hear_of_versions)
            raise StoreUnavailable("it does not answer")
        return self._world.store.read(job_id, after, until)

    def claim(self, job_id: str, worker_id: str, known: Position, rule: ClaimRule) -> Claim:
        fault = self._world.next_claim()
        if fault and fault.kind == "lost":
            raise OutcomeUnknown("the claim was lost")
        claim = self._world.store.claim(job_id, worker_id, known, rule)
        if fault:
            raise OutcomeUnknown("the claim was not answered")
        return claim

    def begin(self, timeout_s: float | None = None) -> Transacting:
        return self._world.begin(self._process, timeout_s)


class _Database:
    """What one process's transactions see of the world."""

    def __init__(self, world: World, process: _Process) -> None:
        self._world = world
        self._process = process
        self._far = copy_context()
        self._far.run(_process.set, cast(Any, None))
        self.store = world.store
        self.notes = world.notes

    @property
    def holder(self) -> Transacting | None:
        return self._world.holder

    @holder.setter
    def holder(self, holder: Transacting | None) -> None:
        self._world.holder = holder

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._world.loop.call_later(seconds, call, context=self._far)

    def stored(self, item: Append) -> None:
        if self._world.store_for(self._process, item).code is not Code.STORED:
            self.notes.unexpected.append("a commit was let through that the log refuses")

    def befalls(self, fault: TransactionFault) -> None:
        self._world.loop.call_soon(self._world.happens, fault.meanwhile, self._process, fault.action, context=self._far)


class _Sender:
    """The writer of one process: its appends go through the world, and are sent again until they are answered."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._world = process.world
        self._far = copy_context()
        self._far.run(_process.set, cast(Any, None))

    def offer(self, item: Append, mailbox: Mailbox) -> bool:
        fault = self._world.next_append()
        if fault is not None:
            self._world.notes.covered[fault.kind] += 1
            if fault.kind == "no room":
                self._world.happens(fault.meanwhile, self._process, fault.action)
                return False
        self._send(item, mailbox, fault)
        return True

    def put(self, item: Append, mailbox: Mailbox) -> None:
        self._send(item, mailbox, None)

    def append(self, item: Append) -> Future[Answer]:
        """Where somebody waits for it in a thread: answered at once."""
        promised: Future[Answer] = Future()
        promised.set_result(self._world.store_for(self._process, item))
        return promised

    def _send(self, item: Append, mailbox: Mailbox, fault: AppendFault | None) -> None:
        self._process.life.appends_after_fence += self._process.life.is_fenced
        if fault is None:
            self._later(LATENCY_S, self._arrive, item, mailbox)
            return
        self._later(fault.seconds / 2, self._world.happens, fault.meanwhile, self._process, fault.action)
        match fault.kind:
            case "lost":
                self._later(fault.seconds, self._arrive_again, item, mailbox)
            case "unanswered":
                self._later(LATENCY_S, self._arrive_unheard, item)
                self._later(fault.seconds, self._arrive_again, item, mailbox)
            case "slow":
                self._later(fault.seconds, self._arrive, item, mailbox)
            case _:
                self._later(LATENCY_S, self._arrive, item, mailbox, fault.seconds)

    def _later(self, seconds: float, call: Any, *args: Any) -> None:
        self._world.loop.call_later(seconds, call, *args, context=self._far)

    def _arrive_unheard(self, item: Append) -> None:
        if self._world.holder is not None:
            self._later(WAIT_S, self._arrive_unheard, item)
        else:
            self._world.store_for(self._process, item)

    def _arrive(self, item: Append, mailbox: Mailbox, answer_after_s: float = 0.0) -> None:
        if self._world.holder is not None:  # the head is locked: it waits there, on its own connection
            self._later(WAIT_S, self._arrive, item, mailbox, answer_after_s)
            return
        answer = self._world.store_for(self._process, item)
        if answer_after_s:
            self._later(answer_after_s, self._answer, item, mailbox, answer)
        else:
            self._answer(item, mailbox, answer)

    def _arrive_again(self, item: Append, mailbox: Mailbox) -> None:
        if self._process.is_alive:
            self._arrive(item, mailbox)

    def _answer(self, item: Append, mailbox: Mailbox, answer: Answer) -> None:
        if not self._process.is_alive:
            return
        self._process.life.is_fenced |= answer.code is Code.FENCED
        if answer.code is Code.STORED:
            self._world.notes.acknowledged.append([event.event_id for event in item.events])
        outcomes: Sequence[tuple[Append, Answer]] = [(item, answer)]
        self._world.loop.call_soon(mailbox.deliver, outcomes, context=self._process.inside)
