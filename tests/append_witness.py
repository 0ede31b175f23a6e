"""Owners that append one event after the other while something is done to their store, and the witness of what they
were told: it compares what was acknowledged with what a connection of its own finds stored.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

from log_builder import LogBuilder, after

from steplog.eventstore.chain import Position
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.store import Answer, Append, Claim, Code, Store
from steplog.eventstore.writer import Writer

T = TypeVar("T")

KNOWN_S_MAX = 30
"""An append whose outcome is not known after that long is a failure."""


class OwnedJob:
    """A job that a worker of the test owns, and where its log ends by what was acknowledged."""

    def __init__(self, store: Store, build: LogBuilder) -> None:
        worker = build.worker()
        store.register_worker(worker, 3600)
        self.claim = Claim(worker.worker_id, 1, "claim")
        self.id = store.create(build.job(claim=self.claim))
        self.end: Position = store.head(self.id).position
        self.build = build

    def next(self, *values: object) -> Append:
        return self.build.append(self.id, self.end, self.claim, *values)


def owned_jobs(store: Store, count: int) -> list[OwnedJob]:
    build = LogBuilder(SystemClock())
    return [OwnedJob(store, build) for _ in range(count)]


class Figures(NamedTuple):
    """What the witness counted, in events."""

    acknowledged: int
    stored: int
    lost: int
    doubled: int
    unknown: int
    """How many calls of the store ended without a known outcome: the faults that were met."""


class Witness:
    """Notes what the owners were told."""

    def __init__(self) -> None:
        self._acknowledged: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()
        self.unknown = 0

    @property
    def acknowledged(self) -> int:
        return len(self._acknowledged)

    def note(self, item: Append) -> None:
        with self._lock:
            self._acknowledged |= {(item.job_id, event.version): event.event_id for event in item.events}

    def note_unknown(self) -> None:
        with self._lock:
            self.unknown += 1

    def await_acknowledged(self, more: int) -> None:
        """Returns once that many more events were acknowledged."""
        wanted, deadline = self.acknowledged + more, time.monotonic() + KNOWN_S_MAX
        while self.acknowledged < wanted:
            assert time.monotonic() < deadline, f"only {self.acknowledged} of {wanted} were acknowledged"
            time.sleep(0.001)

    def figures(self, store: Store, jobs: Sequence[OwnedJob]) -> Figures:
        """The comparison. Reading checks each job's chain: versions without gaps, hashes that follow."""
        found = {
            (job.id, event.version): event.event_id for job in jobs for event in store.read(job.id) if event.version > 1
        }
        times = Counter(found.values())
        return Figures(
            acknowledged=len(self._acknowledged),
            stored=len(found),
            lost=sum(found.get(place) != event_id for place, event_id in self._acknowledged.items()),
            doubled=sum(count - 1 for count in times.values()),
            unknown=self.unknown,
        )


class WitnessedStore:
    """A store whose unknown outcomes are counted."""

    def __init__(self, store: Store, witness: Witness) -> None:
        self._store = store
        self._witness = witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        return self._counted(lambda: self._store.append(batch))

    def append_waiting(self, item: Append) -> Answer:
        return self._counted(lambda: self._store.append_waiting(item))

    def _counted(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except StoreUnavailable:
            self._witness.note_unknown()
            raise


def append_one(writer: Writer, job: OwnedJob, witness: Witness, *values: object) -> None:
    """The owner's next append, known and acknowledged when this returns."""
    item = job.next(*values)
    answer = writer.append(item).result(KNOWN_S_MAX)
    assert answer.code is Code.STORED, answer
    witness.note(item)
    job.end = after(item)


@contextmanager
def steady_load(stores: Sequence[Store], jobs: Sequence[OwnedJob], witness: Witness) -> Iterator[None]:
    """Meanwhile each job appends through a writer on the store at its place, one append after the other."""
    over = threading.Event()

    def go_on(writer: Writer, job: OwnedJob) -> None:
        while not over.is_set():
            append_one(writer, job, witness, "a", "b")

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(len(jobs)))
        running: list[Future[None]] = []
        for store, job in zip(stores, jobs, strict=True):
            witnessed: Any = WitnessedStore(store, witness)
            writer = Writer(witnessed)
            stack.callback(writer.close)
            running.append(pool.submit(go_on, writer, job))
        try:
            yield
        finally:
            over.set()
            for ended in running:
                ended.result(2 * KNOWN_S_MAX)
