"""The runner: carries out what the decider decides for one owned job.

    outcomes in the inbox -> decide -> append -> acknowledge the outcomes -> start what was started

Six rules keep "decide again" from losing, doubling or reordering anything:
1. the same append is sent again before anything is renumbered (the writer does, while its outcome is unknown), unless
   it was the end of a handler's transaction: that is never sent again, and the log tells what became of it;
2. one append of a job is in flight at a time (whoever appends has the turn);
3. outcomes leave the inbox only when the append that records them is acknowledged;
4. outcomes are matched by generation and attempt, and a stale one becomes LateOutcome (the decider does);
5. nothing starts before the append that started it is acknowledged;
6. a head behind what was acknowledged is no conflict: the runner stops, renumbers nothing, and parks the job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from steplog.engine import facts as fact
from steplog.engine.asking import Asking
from steplog.engine.attempts import Attempts
from steplog.engine.decider import Decision, decide, in_progress, next_due
from steplog.engine.deciding.deadlines import job_is_late
from steplog.engine.deciding.suspects import a_suspect_runs, a_suspect_waits
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import LogRegressed, OwnershipLost
from steplog.engine.facts import AttemptId, Fact, Situation
from steplog.engine.fit import unfit_signals
from steplog.engine.history import Loaded, position_of
from steplog.engine.inbox import Entry, Inbox
from steplog.engine.isolation.processes import Isolation
from steplog.engine.keeping import StateKeeper
from steplog.engine.lane import Lane
from steplog.engine.observing import watch_of
from steplog.engine.outbox import Outbox
from steplog.engine.plan import shape_of
from steplog.engine.regression import park_regressed
from steplog.engine.settings import Settings
from steplog.engine.started import START, attempt_of, goes_on, timeout_s_of
from steplog.engine.store_clock import JobTime
from steplog.engine.threads import at_once, finished
from steplog.engine.transactional import Lost, TransactionalAttempt, append_and_commit, with_end
from steplog.engine.values import load as load_value
from steplog.engine.vault import Vault
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.clock import Clock, seconds_between
from steplog.eventstore.errors import JobNotFound, LogError, OutcomeUnknown, StoreDamaged, StoreUnavailable
from steplog.eventstore.events import Event, EventData, PhaseCompleted, PhaseFailed, SubStepFailed
from steplog.eventstore.store import Answer, Append, Claim, Code, Store, StoreTransaction
from steplog.eventstore.writer import CLOSING_S_MAX
from steplog.projections.evolve import fold
from steplog.projections.head import head_of
from steplog.projections.state import GOING_ON, State

logger = logging.getLogger("steplog.engine")
_READ_AGAIN_S = 0.2


def _give_up(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(OutcomeUnknown("the store did not answer before the worker stopped"))


@dataclass(frozen=True, slots=True)
class Owned:
    """What it takes to run a job: its state, the fence, and the code."""

    loaded: Loaded
    claim: Claim
    definition: AnyDefinition
    vault: Vault
    may_release: bool = False
    """Whether the job is given back while it only waits: nobody waits for its end here."""


class Runner:
    """Runs one job until it ends, waits for a person, or is handed back."""

    def __init__(
        self, owned: Owned, store: Store, outbox: Outbox, clock: Clock, settings: Settings, lane: Lane, forks: Isolation
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._time = JobTime(clock, owned.loaded.state["recorded_at"])
        self._settings = settings
        self._lane = lane
        self._claim = owned.claim
        self._definition = owned.definition
        self._release_after_s = settings.release_after_s if owned.may_release else None
        self._shape = shape_of(owned.definition, owned.loaded.state)
        self._input = load_value(owned.loaded.state["input"], owned.definition.input_type, owned.vault)
        self.state: State = owned.loaded.state
        self._position: Position = owned.loaded.position
        self._inbox = Inbox(self._loop)
        self._watch = watch_of(owned.definition, owned.loaded.state, owned.claim)
        self._attempts = Attempts(
            owned.definition,
            self._inbox,
            self._input,
            owned.vault,
            clock,
            settings.grace_s,
            self._watch,
            lambda timeout_s, lost: TransactionalAttempt(store, self, timeout_s, lost),
            forks,
            owned.claim.worker_id,
        )
        self.turn = asyncio.Lock()
        """Whoever has it may append: the loop below, or an attempt whose transaction is to end."""
        self._failure: Exception | None = None
        self._keeper = StateKeeper(store, outbox, settings.store_state_every, owned.loaded.stored_at)
        self._stop_by: float | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._decided_at = ""
        self._asking = Asking(owned.definition, self._input, owned.vault)
        self._tail: list[Event] = []
        """What others had appended where an append last met it; empty where it could not be read."""
        self._known_version = 0
        """The version that a heartbeat has seen in the store."""
        self._cancel_by: float | None = None

    async def run(self) -> State:
        """The job's state when it ended, stopped for a person, or was handed back after `stop`.

        Raises OwnershipLost as soon as another worker owns the job.
        """
        with self._watch:
            try:
                return await self._run()
            except LogRegressed as error:
                logger.error("%s", error)
                return await at_once(self._park_regressed)

    async def _run(self) -> State:
        self._keeper.keep(self.state, self._position, sooner=True)
        try:
            try:
                return await self._go_on()
            except asyncio.CancelledError:  # by who cancels every task of the loop, as asyncio.run does at its end
                self.stop(0.0)
                return await self._go_on()
        except Exception as error:
            self._failure = self._failure or error  # a transaction that ends from now on records nothing more
            raise
        finally:
            self._lane.leave(self.state["job_id"])
            self._inbox.close()
            await self._attempts.close()

    async def _go_on(self) -> State:
        while self.state["status"] in GOING_ON:
            if self._known_version > self._position.version:
                async with self.turn:
                    await self._catch_up()
            entries = self._inbox.entries()
            decision = self._decide([entry.fact for entry in entries])
            if decision.events and not await self._append(decision):
                continue
            self._inbox.acknowledge(entries, decision.unrecorded)
            self._follow(decision.events, decision.state)
            self._cancel_if_due()
            if decision.unfinished:
                continue
            if self.state["status"] in GOING_ON and self._inbox.is_empty:
                if self._handing_back_is_due():
                    await self._attempts.close()
                    self._inbox.post(fact.Interrupted("handed back", self._claim.worker_id))
                elif self._cancelling_is_due():
                    await self._attempts.close()
                    self._inbox.post(fact.Interrupted("cancelled", self._claim.worker_id))
                else:
                    await self._inbox.wait(self._patience_s())
        return self.state

    def stop(self, grace_s: float) -> None:
        """Start nothing new, let what runs settle for `grace_s` seconds, then hand the job back."""
        deadline = self._loop.time() + grace_s
        self._stop_by = deadline if self._stop_by is None else min(self._stop_by, deadline)
        self._attempts.cancel()
        self._inbox.wake()
        self._loop.call_at(self._stop_by, self._attempts.end_transactions)
        self._limit_waiting(self._stop_by)

    def lose_from_thread(self, why: str) -> None:
        """The job is somebody else's now."""
        self._fail(OwnershipLost(self.state["job_id"], why))

    def look_again_from_thread(self, version: int) -> None:
        """The store has that version of the job: somebody else may have appended."""
        self._known_version = version
        if version > self._position.version:
            self._inbox.wake()

    def _fail(self, error: Exception) -> None:
        """The loop ends with that error, and at once: no transaction that has the turn is waited for."""
        self._failure = self._failure or error
        self._inbox.wake()
        with suppress(RuntimeError):  # the loop is closed: nothing of it waits any more
            self._loop.call_soon_threadsafe(self._attempts.end_transactions)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # --- decide ------------------------------------------------------------------------------------------------------

    def _decide(self, happened: list[Fact]) -> Decision:
        self._raise_failure()
        now = self._decided_at = self._time.now(self.state["recorded_at"])
        decision = decide(self.state, self._shape, happened, now, self._situation())
        while decision.questions or decision.unlisted:
            self._asking.ask(decision)
            decision = decide(self.state, self._shape, happened, now, self._situation())
        if self._lane.is_held_by(self.state["job_id"]) and not a_suspect_runs(decision.state):
            self._lane.leave(self.state["job_id"])
        return decision

    def _situation(self) -> Situation:
        return Situation(
            occupied=self._attempts.occupied,
            stuck=self._attempts.stuck,
            release_after_s=self._release_after_s,
            stopping=self._stop_by is not None,
            suspects_wait=a_suspect_waits(self.state) and not self._lane.enter(self.state["job_id"], self._inbox.wake),
            answers=self._asking.answers,
            items=self._asking.items,
            unfit=unfit_signals(self.state, self._shape, self._definition) if self.state["signals"] else {},
            interruptions_max=self._settings.interruptions_max,
        )

    # --- append ------------------------------------------------------------------------------------------------------

    async def _append(self, decision: Decision) -> bool:
        """Make the decision durable; False where somebody else appended first and it has to be made again."""
        decided_at = self._position
        async with self.turn:
            self._raise_failure()
            if self._position is decided_at:
                return await self._append_in_turn(decision)
            self._asking.forget_all()  # a transaction was committed meanwhile: they were asked about another context
            return False

    async def _append_in_turn(self, decision: Decision) -> bool:
        item = self._item(decision)
        code = await self._send(item)
        if code is Code.STORED:
            self._adopt(decision, item)
        elif code is Code.CONFLICT:
            await self._catch_up()
        else:
            raise self._refusal(code)
        return code is Code.STORED

    def _item(self, decision: Decision) -> Append:
        job_id, end = self.state["job_id"], decision.state
        events = seal(job_id, self._position, decision.events, end["recorded_at"], self._clock)
        released = end["status"] not in GOING_ON
        return Append(job_id, self._position, self._claim, events, head_of(end), release=released)

    def _adopt(self, decision: Decision, item: Append) -> None:
        self.state, self._position = decision.state, end_of(item.events, item.expected)

    def _refusal(self, code: Code) -> Exception:
        if code is Code.MISSING:
            return JobNotFound(self.state["job_id"])
        if code is Code.REGRESSED:
            return LogRegressed(self.state["job_id"], self._position.version)
        return OwnershipLost(self.state["job_id"], "its claim is not ours any more")

    async def _send(self, item: Append) -> Code:
        """What became of the append; OutcomeUnknown where the runner has to stop and the store does not answer."""
        self._answer = self._outbox.append(item)
        if self._stop_by is not None:
            self._limit_waiting(max(self._stop_by, self._loop.time()))
        try:
            return (await self._answer).code
        except asyncio.CancelledError:  # the same again, for the answer: what is stored must not be decided upon anew
            self.stop(0.0)
            return await self._send(item)

    def _limit_waiting(self, stop_by: float) -> None:
        """Give the store up some time after the runner should have stopped."""
        if (answer := self._answer) is not None and not answer.done():
            self._loop.call_at(stop_by + CLOSING_S_MAX, _give_up, answer)

    def _park_regressed(self) -> State:
        job_id, worker_id = self.state["job_id"], self._claim.worker_id
        writer, lost = self._outbox.writer, self._position
        return park_regressed(self._store, writer, self._clock, worker_id=worker_id, job_id=job_id, lost=lost)

    async def _catch_up(self) -> None:
        """Fold what others appended; where it cannot be read now, the next append meets the store and waits for it."""
        read, self._tail = self._store.read, []
        try:
            tail = await self._outbox.call(lambda: list(read(self.state["job_id"], self._position.version)))
        except StoreDamaged:
            raise
        except StoreUnavailable as error:
            logger.warning("%s; what others appended to job %s is read again", error, self.state["job_id"])
            await asyncio.sleep(_READ_AGAIN_S)
            return
        self._fold(tail)

    def _fold(self, tail: list[Event]) -> None:
        """Go on from what others appended: attempts that were settled by it stop."""
        self._tail = tail
        self._asking.forget_all()
        self.state = fold(tail, self.state)
        if tail:
            self._position = position_of(tail[-1])
            self._attempts.abandon_all_but(in_progress(self.state))

    def _cancel_if_due(self) -> None:
        """Where the job is cancelled, or has had its time: ask what runs to stop, and give it some time for that."""
        asked = self.state["requested"] == "cancel" or job_is_late(self.state, self._decided_at)
        if self.state["undoing"]:  # that goes on to its end
            self._cancel_by = None
        elif asked and self._cancel_by is None:
            self._cancel_by = self._loop.time() + self._settings.grace_s
            self._attempts.cancel_all()

    # --- append inside a handler's transaction -----------------------------------------------------------------------

    async def record(
        self, happened: fact.Completed | fact.CheckpointReached, transaction: StoreTransaction, lost: Lost
    ) -> bool:
        """Append the fact as the last statement of its attempt's transaction; whether that is committed.

        In the job's turn alone. Raises StoreError where the store refuses the transaction: nothing of it is stored.
        """
        try:
            return await self._record(happened, transaction, lost)
        except (OwnershipLost, JobNotFound, LogError, StoreUnavailable) as error:
            self._fail(error)
            return False
        finally:
            self._inbox.wake()

    async def _record(
        self, happened: fact.Completed | fact.CheckpointReached, transaction: StoreTransaction, lost: Lost
    ) -> bool:
        while happened.of in in_progress(self.state) and not self._gives_up():
            entries = self._inbox.entries()
            self._asking.forget_all()  # the handler has changed the context that conditions were asked about
            decision = self._decide(with_end(happened, [entry.fact for entry in entries]))
            item = self._item(decision)
            try:
                end = await finished(at_once(append_and_commit, transaction, item))
            except StoreDamaged:
                raise
            except StoreUnavailable as error:
                logger.warning("%s; the log will tell whether it was committed (job %s)", error, item.job_id)
                await finished(at_once(transaction.roll_back))
                return await self._settle(happened.of, lost(error), decision, item, entries)
            if end.code is Code.STORED:
                self._adopt(decision, item)
                self._inbox.acknowledge(entries, decision.unrecorded)
                self._follow(decision.events, decision.state)
                return True
            if end.code is Code.CONFLICT:
                self._fold(end.tail)
            elif end.code is not Code.BUSY:
                raise self._refusal(end.code)
        return False

    async def _settle(
        self, of: AttemptId, lost: Fact, decision: Decision, item: Append, entries: Sequence[Entry]
    ) -> bool:
        """Whether the transaction that was to end in that append is committed, by the log alone.

        The append itself is never sent again: without the transaction it would store a completion without its effect.
        That it was lost is, in its place: where that is stored, the transaction can never be committed.
        """
        while of in in_progress(self.state):
            self._asking.forget_all()  # they were asked about the context that it would leave
            loss = self._decide([lost])
            instead = self._item(loss)
            code = await self._send(instead)
            if code is Code.STORED:
                self._adopt(loss, instead)
                self._follow(loss.events, loss.state)
                return False
            if code not in (Code.CONFLICT, Code.FENCED):  # fenced it is, too, where that append ended the job
                raise self._refusal(code)
            await self._catch_up()
            while not self._tail and not self._gives_up():
                await self._catch_up()
            if self.state["epoch"] != self._claim.epoch:
                raise self._refusal(Code.FENCED)
            if self._tail and self._tail[0].event_id == item.events[0].event_id:
                self._inbox.acknowledge(entries, decision.unrecorded)
                going = in_progress(self.state)
                self._follow([event for event in decision.events if goes_on(event, going)], decision.state)
                return True
            if code is Code.FENCED:
                raise self._refusal(code)
        return False

    def _gives_up(self) -> bool:
        return self._stop_by is not None and self._loop.time() >= self._stop_by

    # --- start -------------------------------------------------------------------------------------------------------

    def _follow(self, recorded: Sequence[EventData], state: State) -> None:
        """Do what the events say, now that they are durable; `state` is the one after them, whatever came since."""
        self._asking.forget(recorded)
        self._watch.recorded(recorded, state)
        if self._failure is None:  # who has lost the job calls nothing more
            self._start(recorded, state)
        ended = any(isinstance(event, (PhaseCompleted, PhaseFailed)) for event in recorded)
        self._keeper.keep(self.state, self._position, sooner=ended)

    def _start(self, events: Sequence[EventData], state: State) -> None:
        for event in events:
            if isinstance(event, START):
                of = attempt_of(event)
                self._attempts.start(of, state, timeout_s_of(self._shape, of))
            elif state["deadlines"] and isinstance(event, SubStepFailed):  # its handler may still run
                self._attempts.abandon(attempt_of(event))
                if event.item is None and self._shape.fan_outs[event.phase]:
                    self._attempts.abandon_all_but(in_progress(state))

    # --- wait, hand back ---------------------------------------------------------------------------------------------

    def _patience_s(self) -> float | None:
        """Seconds until time alone changes something."""
        due = next_due(self.state, self._decided_at)
        waits = [max(0.0, seconds_between(self._time.now(self._decided_at), due))] if due else []
        if self._stop_by is not None:
            waits = [max(0.0, self._stop_by - self._loop.time())]
        if self._cancel_by is not None:
            waits.append(max(0.0, self._cancel_by - self._loop.time()))
        return min(waits, default=None)

    def _cancelling_is_due(self) -> bool:
        if self._cancel_by is None or not in_progress(self.state):
            return False
        return self._loop.time() >= self._cancel_by or not self._attempts.are_running

    def _handing_back_is_due(self) -> bool:
        if self._stop_by is None:
            return False
        return self._loop.time() >= self._stop_by or not in_progress(self.state) or not self._attempts.are_running
