"""The world of one story: processes that come and go on one virtual loop, and a store that is hard to reach.

A process is everything that runs in one `contextvars` context. When it dies, nothing of it is ever called again.
"""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from typing import Any, cast

from simulation.handlers import Given, Shared, definition_of
from simulation.loop import Loop
from simulation.notes import Forked, Life, Notes, Stored
from simulation.operators import WHO, Action
from simulation.reaching import HEARTBEAT_S, Database, Sender, Unreliable, caller
from simulation.short import short_lists
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
from steplog.engine.isolation.processes import Isolation
from steplog.engine.jobs import prepare, recorded_input
from steplog.engine.lane import Lane
from steplog.engine.outbox import Outbox
from steplog.engine.runner import Owned, Runner
from steplog.engine.settings import Settings
from steplog.engine.vault import new_vault
from steplog.engine.worker import Worker
from steplog.eventstore.errors import SteplogError, StoreError
from steplog.eventstore.events import Event
from steplog.eventstore.store import Answer, Append, Claim, Code, WorkerIdentity
from steplog.eventstore.writer import Writer
from steplog.projections.evolve import fold
from steplog.projections.state import ENDED, STOPPED, State
from steplog.testing.clock import VirtualClock
from steplog.testing.loop import Deadlock
from steplog.testing.memory import MemoryStore

SETTINGS = Settings(heartbeat_s=HEARTBEAT_S, grace_s=3.0, interruptions_max=3, store_state_every=12)
TURNS_MAX = 5_000
STOP_GRACE_S = 2.0
POLL_S = 0.5
"""How often a worker without work looks for some."""
SIGNAL_EVERY_S = 15.0
"""How often somebody sends a signal that a sub-step waits for without a limit."""


class NeverEnds(RuntimeError):
    """The job does not get on."""


class World:
    """Runs a story; afterwards `notes` and `log` say what happened."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock)
        self.notes = Notes()
        self.job_id = ""
        self.loop = Loop(self.clock, self.turn)
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
        self._dying: list[Process] = []
        self._remembered: set[asyncio.Task[Any]] = set()
        """Tasks of dead processes: collected early, they would run their `finally`."""
        self._owner: Process | None = None
        self._processes: list[Process] = []
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
        with taking_turns() as threads, short_lists():
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
            process = self._owner = Process(self, len(self.notes.lives) + 1)
            self._processes.append(process)
            process.start(resume_by)
            if await process.over == "crashed":
                await asyncio.sleep(self.story.recovery_s)
            await self._until_due()
            resume_by = self._who_goes_on() if self.job_id else None
        self._is_told = True
        await asyncio.gather(*(process.gone for process in self._processes))  # the robbed ones find out

    async def _until_due(self) -> None:
        """A job that was given back is taken up by whoever looks for work once it is due, or somebody changed it."""
        await self.until_free()  # what is due is read under the lock that the claim takes
        while self.job_id and (waits := self.store.head(self.job_id).columns).status == "waiting":
            if waits.wake_at is not None and waits.wake_at <= self.clock.now():
                return
            await asyncio.sleep(POLL_S)
            await self.until_free()

    async def until_free(self) -> None:
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
        gc.collect(1)  # what nobody looked at says so now, and not in another story
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

    def happens(self, what: Meanwhile, to: Process | None, action: Action | None) -> None:
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

    def begin(self, process: Process, timeout_s: float | None) -> Transacting:
        """For a handler of that process; a dead one has none."""
        if not process.is_alive:
            current().stand()
        self.transactions += 1
        fault = self._of_transaction.pop(self.transactions, None)
        alone = self.story.stops_writers
        process.opened.append(transaction := Transacting(cast(Any, Database(self, process)), fault, timeout_s, alone))
        return transaction

    def next_effect(self) -> int:
        self.effects += 1
        return self.effects

    def bury(self, process: Process) -> None:
        """Nothing of the process runs from the next turn on."""
        self._dying.append(process)

    def store_for(self, process: Process, item: Append) -> Answer:
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
        return caller.get().life.number

    def now(self) -> float:
        return self.clock.monotonic()

    def version(self) -> int:
        return self.store.head(self.job_id).version

    def kill(self) -> None:
        caller.get().die()

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


class Process:
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
        """Whether it is alive, has claimed the job, and may think that it is its own."""
        return self._alive and self.life.epoch is not None and self.life.robbed_at is None

    @property
    def is_alive(self) -> bool:
        return self._alive

    def start(self, resume_by: str | None) -> None:
        self.inside.run(caller.set, self)
        name = f"process {self.life.number}"
        task = self.world.loop.create_task(self._live(resume_by), name=name, context=self.inside)
        task.add_done_callback(self._ended)

    async def _live(self, resume_by: str | None) -> State:
        world, store = self.world, cast(Any, Unreliable(self))
        await world.until_free()
        owned = self._created() if not world.job_id else self._claimed(store, resume_by)
        self.life.epoch = owned.claim.epoch
        writer = cast(Writer, Sender(self))
        self._runner = Runner(owned, store, Outbox(writer), self.clock, SETTINGS, Lane(), Isolation())
        return await self._runner.run()

    def _created(self) -> Owned:
        definition = self.world.definition
        owned, new_job = prepare(cast(Worker, self), definition, recorded_input(definition, None), None)
        self.world.job_id = self.world.store.create(new_job)
        return replace(owned, may_release=self.world.story.releases)

    def first_claim(self) -> Claim:
        return Claim(self.worker_id, 1, self.clock.new_id())

    def _claimed(self, store: Any, resume_by: str | None) -> Owned:
        loaded, claim = claim_job(
            store, self.clock, self.worker_id, load(store, self.world.job_id), resume_by=resume_by
        )
        vault, releases = new_vault(self.world.job_id), self.world.story.releases
        return Owned(loaded, claim, self.world.definition, vault, may_release=releases)

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
