"""The group-commit writer: one thread per process and store drains a queue of new jobs and owners' appends.

The running commit is the batching window: what arrives meanwhile goes into the next one. There is no timer. A job whose
head is locked leaves the batches: it is sent alone, by threads of its own, so that nobody waits for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Protocol, TypeVar

from steplog.eventstore.errors import OutcomeUnknown, StoreDamaged, StoreUnavailable
from steplog.eventstore.outage import Outage
from steplog.eventstore.store import Answer, Append, Code, NewJob, Store

BATCH_MAX = 256
BATCH_BYTES_MAX = 4 << 20
WAITING_MAX = 10_000
WAITING_BYTES_MAX = 64 << 20
CLOSING_S_MAX = 5.0
"""How long `close` waits for a store that does not answer."""

_LOCKED_HEADS_AT_ONCE = 4
_RESEND_WAITS_S = (0.05, 0.1, 0.2, 0.5, 1.0)

T = TypeVar("T")


Item = Append | NewJob
Outcome = Answer | str | Exception
"""What became of an item: the answer to an append, the id of a new job, or why there is neither."""


class Mailbox(Protocol):
    """Where the writer puts what became of its items."""

    def deliver(self, outcomes: Sequence[tuple[Item, Outcome]]) -> None:
        """Take the outcomes of items that were stored together; called in the writer's threads, never waits."""
        ...


class _Promise(Future[Answer]):
    """The mailbox of one append that somebody waits for in a thread of his own."""

    def deliver(self, outcomes: Sequence[tuple[Item, Outcome]]) -> None:
        ((_, outcome),) = outcomes
        if isinstance(outcome, Answer):
            self.set_result(outcome)
        elif isinstance(outcome, Exception):
            self.set_exception(outcome)


@dataclass(eq=False, slots=True)
class _Queued:
    item: Item
    mailbox: Mailbox
    size: int


class Writer:
    """Creates jobs and appends for them, many in one transaction, one transaction at a time."""

    def __init__(
        self, store: Store, *, waiting_max: int = WAITING_MAX, waiting_bytes_max: int = WAITING_BYTES_MAX
    ) -> None:
        self._store = store
        self._waiting_max = waiting_max
        self._waiting_bytes_max = waiting_bytes_max
        self._outage = Outage()
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._locked: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._kept_back: list[_Queued] = []
        self._unanswered: set[_Queued] = set()
        self._bytes = 0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._callers_waiting = 0
        self._closing = threading.Event()
        self._away = False
        self._ended = False
        self._alone: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._drain, name="steplog-writer", daemon=True)
        self._thread.start()

    # --- what a caller does with it ----------------------------------------------------------------------------------

    def append(self, item: Append) -> Future[Answer]:
        """Queue an append; the future resolves once it is durable or refused. At most one in flight per job.

        Where too much waits already, this waits for room: nothing is ever dropped.
        """
        promise = _Promise()
        promise.set_running_or_notify_cancel()
        self.put(item, promise)
        return promise

    def put(self, item: Item, mailbox: Mailbox) -> None:
        """The same, or a new job, with the outcome delivered to a mailbox."""
        while not self.offer(item, mailbox):
            self._await_room(_size(item))

    def offer(self, item: Item, mailbox: Mailbox) -> bool:
        """The same without waiting: False where there is no room."""
        queued = _Queued(item, mailbox, _size(item))
        with self._lock:
            if self._closing.is_set():
                raise StoreUnavailable("the writer is closed")
            if not self._has_room(queued.size):
                return False
            self._unanswered.add(queued)
            self._bytes += queued.size
            self._queue.put(queued)
        return True

    def close(self) -> None:
        """Write what is queued, then end the threads. What a store that is away does not take raises StoreUnavailable.

        Where an append was sent and the store does not answer, that is OutcomeUnknown.
        """
        with self._room:
            self._closing.set()
            self._queue.put(None)
            self._room.notify_all()
        give_up_at = time.monotonic() + CLOSING_S_MAX
        for thread in (self._thread, *self._alone):
            thread.join(max(0.0, give_up_at - time.monotonic()))
        self._fail(list(self._unanswered), OutcomeUnknown("the store did not answer before the writer was closed"))

    def _await_room(self, size: int) -> None:
        with self._room:
            self._callers_waiting += 1
            self._room.wait_for(lambda: self._closing.is_set() or self._has_room(size))
            self._callers_waiting -= 1

    def _has_room(self, size: int) -> bool:
        waiting = len(self._unanswered)
        return not waiting or (waiting < self._waiting_max and self._bytes + size <= self._waiting_bytes_max)

    # --- batches -----------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        while batch := self._next_batch():
            self._write(batch)
        for _ in self._alone:
            self._locked.put(None)

    def _next_batch(self) -> list[_Queued]:
        """What has arrived by now, one append a job; waits for the first. Empty once the writer is closed."""
        batch: list[_Queued] = []
        jobs: set[str] = set()
        size = 0
        candidates = iter(self._kept_back)
        self._kept_back = []
        for queued in chain(candidates, self._arriving(batch)):
            if queued.item.job_id in jobs:
                self._kept_back.append(queued)
                continue
            batch.append(queued)
            jobs.add(queued.item.job_id)
            size += queued.size
            if len(batch) >= BATCH_MAX or size >= BATCH_BYTES_MAX:
                break
        self._kept_back += candidates
        return batch

    def _arriving(self, batch: list[_Queued]) -> Iterator[_Queued]:
        """What is in the queue; waits while the batch is empty."""
        while not self._ended:
            try:
                queued = self._queue.get(block=not batch)
            except queue.Empty:
                return
            if queued is None:
                self._ended = True
            else:
                yield queued

    def _write(self, batch: list[_Queued]) -> None:
        new = [(queued, queued.item) for queued in batch if isinstance(queued.item, NewJob)]
        appends = [(queued, queued.item) for queued in batch if isinstance(queued.item, Append)]
        if new:
            self._send(new, self._store.create_many)
        if appends:
            self._send(appends, self._store.append)

    def _send(self, batch: Sequence[tuple[_Queued, T]], store: Callable[[list[T]], Sequence[Outcome]]) -> None:
        try:
            outcomes = self._until_known(partial(store, [item for _, item in batch]))
        except Exception as error:
            self._set_apart([queued for queued, _ in batch], error)
            return
        known = [(queued, outcome) for (queued, _), outcome in zip(batch, outcomes, strict=True)]
        self._answer([(queued, outcome) for queued, outcome in known if not _is_busy(outcome)])
        for queued, outcome in known:
            if _is_busy(outcome):
                self._send_alone(queued)

    def _set_apart(self, batch: list[_Queued], error: Exception) -> None:
        """One member that cannot be stored must not take the others with it: halve until it stands alone."""
        away = isinstance(error, StoreUnavailable) and not isinstance(error, StoreDamaged)
        if away or len(batch) == 1:
            self._fail(batch, error)
            return
        middle = len(batch) // 2
        self._write(batch[:middle])
        self._write(batch[middle:])

    # --- locked heads ------------------------------------------------------------------------------------------------

    def _send_alone(self, queued: _Queued) -> None:
        if not self._alone:
            self._alone = [
                threading.Thread(target=self._drain_locked, name=f"steplog-writer-alone-{number}", daemon=True)
                for number in range(_LOCKED_HEADS_AT_ONCE)
            ]
            for thread in self._alone:
                thread.start()
        self._locked.put(queued)

    def _drain_locked(self) -> None:
        while (queued := self._locked.get()) is not None:
            assert isinstance(queued.item, Append)
            try:
                answer = self._until_known(partial(self._store.append_waiting, queued.item))
            except Exception as error:
                self._fail([queued], error)
                continue
            if answer.code is not Code.BUSY:
                self._answer([(queued, answer)])
            elif self._closing.is_set():
                self._fail([queued], OutcomeUnknown("the job was locked until the writer was closed"))
            else:
                self._locked.put(queued)

    # --- outcomes ----------------------------------------------------------------------------------------------------

    def _until_known(self, send: Callable[[], T]) -> T:
        """Send the same events again until they are stored or refused: they cannot be stored twice."""
        tries = 0
        while not self._away:
            try:
                known = send()
            except StoreDamaged:
                raise
            except StoreUnavailable as error:
                if self._closing.is_set():
                    self._away = True
                    raise
                self._outage.met(error)
                self._closing.wait(_RESEND_WAITS_S[min(tries, len(_RESEND_WAITS_S) - 1)])
                tries += 1
            else:
                self._outage.over()
                return known
        raise StoreUnavailable("the store is away and the writer is closed")

    def _fail(self, unanswered: list[_Queued], error: Exception) -> None:
        self._answer([(queued, error) for queued in unanswered])

    def _answer(self, outcomes: Sequence[tuple[_Queued, Outcome]]) -> None:
        """Deliver those that nobody else answers: `close` gives up on a store that may still answer later."""
        mine: dict[Mailbox, list[tuple[Item, Outcome]]] = {}
        with self._lock:
            for queued, outcome in outcomes:
                if queued in self._unanswered:
                    self._unanswered.discard(queued)
                    self._bytes -= queued.size
                    mine.setdefault(queued.mailbox, []).append((queued.item, outcome))
            if self._callers_waiting:
                self._room.notify_all()
        for mailbox, delivered in mine.items():
            mailbox.deliver(delivered)


def _is_busy(outcome: Outcome) -> bool:
    return isinstance(outcome, Answer) and outcome.code is Code.BUSY


def _size(item: Item) -> int:
    size = 0
    for event in item.events:
        size += len(event.payload)
    return size
