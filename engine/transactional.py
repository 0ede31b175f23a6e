"""One attempt of a transactional sub-step: its transaction begun, handed to the handler, and ended by the append.

    begin -> handler in its own thread -> the job's append turn -> append, conflict decided again inside -> commit

No lock on the job is held while the handler runs, and its siblings append meanwhile; where a transaction stops every
writer, the attempt has the turn from the beginning, so that nothing of the job's own waits inside the store for it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import wait
from typing import Any, NamedTuple, Protocol, Self

from steplog.engine import facts as fact
from steplog.engine.errors import AttemptOver
from steplog.engine.facts import Fact
from steplog.engine.threads import at_once
from steplog.engine.transaction import Transaction
from steplog.eventstore.errors import StoreDamaged, StoreUnavailable, TransactionClosed
from steplog.eventstore.events import Event
from steplog.eventstore.store import Append, Code, Store, StoreTransaction

_BEGIN_AGAIN_S = 0.2
_LOOK_AGAIN_S = 1.0
"""How often a handler's thread looks whether the run that it waits for is still there."""

logger = logging.getLogger("steplog.engine")


class Ending(NamedTuple):
    """What became of an append inside a transaction; after a conflict, what others had appended."""

    code: Code
    tail: list[Event]


def with_end(happened: fact.Completed | fact.CheckpointReached, waiting: Sequence[Fact]) -> list[Fact]:
    """What a transaction's end is decided from: behind what its attempt said on its way, before all else that waits."""
    own = [each for each in waiting if isinstance(each, fact.Logged | fact.Progressed) and each.of == happened.of]
    return [*own, happened, *(each for each in waiting if each not in own)]


def append_and_commit(transaction: StoreTransaction, item: Append) -> Ending:
    """Put the append behind the handler's statements, and commit both if and only if that is accepted."""
    code = transaction.append(item).code
    if code is Code.STORED:
        transaction.commit()
    return Ending(code, transaction.tail(item.job_id, item.expected) if code is Code.CONFLICT else [])


def _awaited(recording: Coroutine[Any, Any, bool], loop: asyncio.AbstractEventLoop) -> bool:
    """What it comes to in the loop, for a handler's thread that waits for it.

    Raises TransactionClosed where the loop is closed, and with it the run: nobody will record anything any more.
    """
    try:
        recorded = asyncio.run_coroutine_threadsafe(recording, loop)
    except RuntimeError:
        recording.close()
        raise TransactionClosed from None
    while not wait([recorded], _LOOK_AGAIN_S).done:
        if loop.is_closed():
            if inspect.getcoroutinestate(recording) == inspect.CORO_CREATED:
                recording.close()
            raise TransactionClosed
    return recorded.result()


def _expected(recording: asyncio.Future[bool]) -> None:
    """What it ended in is no surprise to the loop, also where nobody waits for it any more."""
    if not recording.cancelled():
        recording.exception()


Lost = Callable[[StoreUnavailable], Fact]
"""What is recorded of an attempt whose transaction was lost by that error."""


class Recorder(Protocol):
    """The runner, as an attempt sees it."""

    turn: asyncio.Lock
    """Whoever has it may append to the job's log."""

    async def record(
        self, happened: fact.Completed | fact.CheckpointReached, transaction: StoreTransaction, lost: Lost
    ) -> bool:
        """Append the fact as the transaction's last statement; whether that is committed. Only in the job's turn.

        Where the transaction is lost, what `lost` makes of that is recorded instead. Raises what made the store refuse
        it.
        """
        ...


class TransactionalAttempt:
    """A context manager around the attempt: at its end, whatever happened, nothing of it is open any more."""

    def __init__(self, store: Store, recorder: Recorder, timeout_s: float | None, lost: Lost) -> None:
        self.transaction = Transaction(self._current)
        self.limit_s = timeout_s or 0.0
        """How long the handler may take; where only the store has a limit, each of its transactions."""
        self._store = store
        self.recorder = recorder
        self._timeout_s = timeout_s
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._open: StoreTransaction | None = None
        self._over = False
        self._opening = threading.Lock()
        self._is_settled = False
        """Whether the attempt was settled otherwise, so that what becomes of its handler tells nobody anything."""
        self._has_turn = False
        self._recording = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._expired: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_lost(self) -> bool:
        """Whether the database went away inside the transaction."""
        return self._open is not None and self._open.is_lost

    async def __aenter__(self) -> Self:
        if self._store.stops_writers:
            await self._take_turn()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._stop_timer()
        try:
            async with self._recording:  # a commit that is under way is waited for
                pass
        finally:
            ended = at_once(self.end)
            ended.add_done_callback(self._give_turn_unless_recording)
            await asyncio.shield(ended)  # whoever waits may be cancelled: what is open must not stay so

    def _give_turn_unless_recording(self, ended: asyncio.Future[None]) -> None:
        """Who records gives it when the end is adopted, also where nobody waits for that any more."""
        if not self._recording.locked():
            self._give_turn()

    # --- in the handler's thread -------------------------------------------------------------------------------------

    def run(self, handler: Callable[[], Fact | None]) -> Fact | None:
        """What became of the handler, None if that counts no more; its transaction is open only if it completed."""
        try:
            self._begin()
        except TransactionClosed:  # settled otherwise before it had begun
            return None
        outcome = handler()
        if not isinstance(outcome, fact.Completed):
            self.end()
        return None if self._is_settled else outcome

    def checkpoint(self, reached: fact.CheckpointReached) -> None:
        """Commit what the handler has written so far together with its cursor, and begin anew.

        Raises AttemptOver where the attempt was settled otherwise: nothing since the last checkpoint is committed then.
        """
        self._current()
        recorded = _awaited(self._record_checkpoint(reached), self._loop)
        if not recorded:
            self._is_settled = True
            self.end()
            raise AttemptOver("the attempt was settled otherwise: its checkpoint is not recorded")
        self._begin()

    def end(self) -> None:
        """Roll back what is open, and open nothing more."""
        with self._opening:
            self._over, opened = True, self._open
        if opened is not None:
            opened.roll_back()

    def _current(self) -> StoreTransaction:
        if self._open is None or self._over:
            raise TransactionClosed
        return self._open

    def _begin(self) -> None:
        """Open the next transaction; a store that is away is waited for, as it is with an append."""
        opened = self._begun()
        with self._opening:
            if not self._over:
                self._open = opened
        if self._open is not opened:
            opened.roll_back()
            raise TransactionClosed
        try:
            self._loop.call_soon_threadsafe(self._start_timer, opened.timeout_s)
        except RuntimeError:  # the loop is closed, and with it the run
            self.end()
            raise TransactionClosed from None

    def _begun(self) -> StoreTransaction:
        while not self._over:
            try:
                return self._store.begin(self._timeout_s)
            except StoreDamaged:
                raise
            except StoreUnavailable as error:
                logger.warning("%s; the transaction begins once that is over", error)
                time.sleep(_BEGIN_AGAIN_S)
        raise TransactionClosed

    # --- in the loop's thread ----------------------------------------------------------------------------------------

    async def ends(self, running: asyncio.Future[Fact | None]) -> bool:
        """Wait for the handler; whether it ended in time."""
        either: set[asyncio.Future[Any]] = {running, self._expired}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return running.done()

    async def _record_checkpoint(self, reached: fact.CheckpointReached) -> bool:
        if self._timeout_s is None:
            self._stop_timer()
        try:
            return await self.record(reached)
        except BaseException:
            if self._timeout_s is None and self._open is not None:  # what is open has its time again
                self._start_timer(self._open.timeout_s)
            raise
        finally:
            if self._store.stops_writers:  # behind whatever of the job's was waiting for its turn
                await self._take_turn()
                if self._over:
                    self._give_turn()

    async def record(self, happened: fact.Completed | fact.CheckpointReached) -> bool:
        """Record it as the transaction's end; whether that is committed. Raises what the recorder does.

        Who is cancelled meanwhile waits for the end: a commit cannot be taken back.
        """
        recording = asyncio.ensure_future(self._record_in_turn(happened))
        recording.add_done_callback(_expected)
        try:
            return await asyncio.shield(recording)
        except asyncio.CancelledError:
            await asyncio.wait({recording})
            raise

    async def _record_in_turn(self, happened: fact.Completed | fact.CheckpointReached) -> bool:
        async with self._recording:
            await self._take_turn()
            try:
                return await self.recorder.record(happened, self._current(), self._lost)
            finally:
                self._give_turn()

    async def _take_turn(self) -> None:
        if not self._has_turn:
            await self.recorder.turn.acquire()
            self._has_turn = True

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.recorder.turn.release()

    # --- time --------------------------------------------------------------------------------------------------------

    def _start_timer(self, limit_s: float | None) -> None:
        if self._timer is None and limit_s is not None and not self._over:
            self.limit_s = limit_s
            self._timer = self._loop.call_later(limit_s, self.expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def expire(self) -> None:
        """The handler has had its time: its transaction is rolled back, and it is waited for."""
        if not self._expired.done():
            self._expired.set_result(None)
