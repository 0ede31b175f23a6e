"""The store as one process reaches it: reading and claiming fail by plan, appends are lost, late or answered twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, cast

from simulation.story import AppendFault, TransactionFault
from simulation.transacting import WAIT_S, Transacting

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import OutcomeUnknown, StoreUnavailable
from steplog.eventstore.events import Event
from steplog.eventstore.store import Answer, Append, Claim, ClaimRule, Code
from steplog.eventstore.writer import Mailbox

if TYPE_CHECKING:
    from simulation.world import Process, World

LATENCY_S = 0.001
HEARTBEAT_S = 1.0

caller: ContextVar[Process] = ContextVar("caller")
"""The process that the code which asks runs in."""


class Unreliable:
    """The store as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self.stops_writers = process.world.story.stops_writers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    def read(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Event]:
        if self._world.next_read():
            self._world.notes.covered["unreadable"] += 1
            self._world.loop.call_later(HEARTBEAT_S, self._process.hear_of_versions)
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


class Database:
    """What one process's transactions see of the world."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._far = copy_context()
        self._far.run(caller.set, cast(Any, None))
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


class Sender:
    """The writer of one process: its appends go through the world, and are sent again until they are answered."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._far = copy_context()
        self._far.run(caller.set, cast(Any, None))

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
