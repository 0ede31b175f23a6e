"""The log in memory: the store's whole contract without a disk, on a clock of the test's own.

Nothing outlives the process, and a worker dies when the test says so. Transactional sub-steps write to a database in
memory, in SQLite's dialect, that a test prepares and looks at with `MemoryStore.transaction`.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from steplog.engine.transaction import Transaction
from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.clock import Clock
from steplog.eventstore.errors import FeedMoved, JobNotFound, JobOwned, KeyConflict, LogError, StoreError, WorkerDead
from steplog.eventstore.events import Event, NewEvent
from steplog.eventstore.feed import PAGE_ENTRIES, FeedEntry, FeedPage, as_cursor, parts_of
from steplog.eventstore.heads import counted
from steplog.eventstore.inspection import Inspection
from steplog.eventstore.sqlite_transaction import SQLiteTransaction, open_in_memory
from steplog.eventstore.store import (
    Answer,
    Append,
    BatchCount,
    Beat,
    Claim,
    ClaimRule,
    Code,
    Head,
    HeadColumns,
    HeadQuery,
    Look,
    NewJob,
    Opened,
    Rule,
    Slots,
    SlotWanted,
    StoredState,
    Work,
    WorkQuery,
)
from steplog.eventstore.stream import judge, judge_claim, logs_of, read_to, tail_of, unless_pruned
from steplog.testing.clock import VirtualClock
from steplog.testing.memory_data_keys import DataKeysInMemory
from steplog.testing.memory_fleet import HintsInMemory, batches_of, longest_due, work_of
from steplog.testing.memory_log import InspectionInMemory, JobInMemory, marks_of, matches, owned, position_at, row_of
from steplog.testing.memory_projected import ProjectedInMemory
from steplog.testing.memory_schedules import SchedulesInMemory
from steplog.testing.memory_slots import SlotsInMemory
from steplog.testing.memory_workers import WorkersInMemory


class MemoryStore(SchedulesInMemory, HintsInMemory, WorkersInMemory):
    """A store that lives as long as the object."""

    url = "memory:"
    stops_writers = False

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or VirtualClock()
        SchedulesInMemory.__init__(self, self.clock.now)
        HintsInMemory.__init__(self)
        WorkersInMemory.__init__(self, self.clock.now)
        self._jobs: dict[str, JobInMemory] = {}
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._feed: list[FeedEntry] = []
        self._pruned: dict[str, Position] = {}
        self.projected = ProjectedInMemory(self._versions)
        self.data_keys = DataKeysInMemory()
        self._slots = SlotsInMemory()
        self._let_go = threading.Condition(self._lock)
        self._database = open_in_memory()
        self._database_turn = threading.Lock()
        weakref.finalize(self, self._database.close)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """What a transactional handler gets, for a test's own statements: committed unless the body raises."""
        opened = self.begin()
        try:
            yield Transaction(lambda: opened)
            opened.commit()
        finally:
            opened.roll_back()

    # --- the store itself --------------------------------------------------------------------------------------------

    def migrate(self, *, dry_run: bool = False) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing to let go of: what is in the store stays readable."""

    def now(self) -> str:
        return self.clock.now()

    # --- writing the log ---------------------------------------------------------------------------------------------

    def create(self, job: NewJob) -> str:
        with self._lock:
            name = (job.columns.workflow, job.columns.key or "")
            if job.columns.key is not None and name in self._keys:
                job_id, input_hash = self._keys[name]
                if input_hash != job.input_hash:
                    raise KeyConflict(*name, job_id)
                return job_id
            if job.job_id in self._jobs:
                self._jobs[job.job_id].require_same(job)
                return job.job_id
            if job.claim and job.claim.worker_id:
                self._require_alive(job.claim.worker_id)
            head = owned(Head(job.job_id, 0, "", "", job.columns, job.epoch), job.claim)
            self._store(self._jobs.setdefault(job.job_id, JobInMemory(head)), head, job.events, job.columns)
            self.data_keys.keep(job)
            if job.columns.key is not None:
                self._keys[name] = (job.job_id, job.input_hash)
            return job.job_id

    def create_many(self, batch: Sequence[NewJob]) -> list[str | StoreError]:
        with self._lock:
            return [self._created_or_why_not(job) for job in batch]

    def _created_or_why_not(self, job: NewJob) -> str | StoreError:
        try:
            return self.create(job)
        except (KeyConflict, WorkerDead) as refused:
            return refused

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        with self._lock:
            return [self._append(item) for item in batch]

    def append_waiting(self, item: Append) -> Answer:
        with self._lock:
            self._await_head(item.job_id)
            return self._append(item)

    def append_locked(self, job_id: str, known: Position, rule: Rule, *, request_id: str | None = None) -> int:
        with self._lock:
            self._await_head(job_id)
            job = self._job(job_id)
            if request_id is not None and request_id in job.requests:
                return job.requests[request_id]
            proposal = rule(job.head, tail_of(job.head, job.rows[known.version :], known))
            if proposal:
                head = replace(job.head, epoch=max(job.head.epoch, proposal.epoch))
                head = owned(head, proposal.claim) if proposal.claim else head
                self._store(job, head, proposal.events, proposal.columns)
                self.data_keys.follow(job_id, proposal, self.now())
            if request_id is not None:
                job.requests[request_id] = job.head.version
            return job.head.version

    def claim(self, job_id: str, worker_id: str, known: Position, rule: ClaimRule) -> Claim:
        """Make the worker the job's owner, as the protocol says.

        A worker may claim anew a job that it owns: its former claim is fenced.
        """
        with self._lock:
            self._await_head(job_id)
            job = self._job(job_id)
            self._require_alive(worker_id)
            owner_id = job.head.worker_id
            if owner_id is not None and owner_id != worker_id and self._lives(owner_id):
                raise JobOwned(job_id, owner_id, None)
            claim = Claim(worker_id, job.head.epoch + 1, self.clock.new_id())
            proposal = rule(job.head, tail_of(job.head, job.rows[known.version :], known), claim)
            if owner_id is not None and owner_id != worker_id:
                self._end(owner_id, "dead")
            self._store(job, owned(job.head, claim), proposal.events, proposal.columns)
            return claim

    def claim_many(self, batch: Sequence[Append], slots: Slots | None = None) -> list[Answer]:
        with self._lock:
            for worker_id in {item.claim.worker_id for item in batch}:
                self._require_alive(worker_id)
            return [self._claim(item, (slots or {}).get(item.job_id, ())) for item in batch]

    def abandon(self, job_id: str, claim: Claim) -> None:
        with self._lock:
            job = self._job(job_id)
            if (job.head.epoch, job.head.claim_id) == (claim.epoch, claim.claim_id):
                job.head = owned(job.head, None)

    # --- finding work ------------------------------------------------------------------------------------------------

    def look_for_work(self, query: WorkQuery) -> Work:
        with self._lock:
            return work_of(query, self._heads(), self.now(), self._lives)

    def read_heads(self, heads: Sequence[Head]) -> dict[str, list[Event] | LogError]:
        with self._lock:
            rows = {head.job_id: self._job(head.job_id).rows[: head.version] for head in heads}
        return logs_of(heads, lambda head: rows[head.job_id])

    def begin(self, timeout_s: float | None = None) -> SQLiteTransaction:
        self._database_turn.acquire()
        self._database.execute("BEGIN IMMEDIATE")
        return SQLiteTransaction(self._database, _Ending(self), timeout_s)

    # --- reading the log ---------------------------------------------------------------------------------------------

    def head(self, job_id: str) -> Head:
        with self._lock:
            return self._job(job_id).head

    def heads_of(self, job_ids: Sequence[str]) -> list[Head]:
        with self._lock:
            return [self._jobs[job_id].head for job_id in job_ids if job_id in self._jobs]

    def look_at(self, job_id: str) -> Look:
        with self._lock:
            head = self._job(job_id).head
            return Look(head, self._workers.get(head.worker_id or ""), self.now())

    def heads(self, query: HeadQuery) -> list[Head]:
        with self._lock:
            found = [job.head for _, job in sorted(self._jobs.items(), reverse=True) if matches(job.head, query)]
            return found[: max(query.limit, 0)]

    def counts(self) -> dict[str, dict[str, int]]:
        with self._lock:
            return counted((job.head.columns.workflow, job.head.columns.status, 1) for job in self._jobs.values())

    def batches(self, batch_id: str | None = None, limit: int = 50) -> list[BatchCount]:
        with self._lock:
            return batches_of(self._heads(), batch_id)[: max(limit, 0)]

    def find(self, suffix: str, limit: int = 10) -> list[str]:
        with self._lock:
            return [job_id for job_id in sorted(self._jobs, reverse=True) if job_id.endswith(suffix)][: max(limit, 0)]

    def job_of_key(self, workflow: str | None, key: str) -> list[str]:
        with self._lock:
            found = [job_id for (of, name), (job_id, _) in self._keys.items() if name == key and workflow in (None, of)]
            return sorted(found, reverse=True)

    def read(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Event]:
        return unless_pruned(job_id, self._events(job_id, after, until), lambda: self.pruned(job_id))

    def _events(self, job_id: str, after: int, until: int | None) -> Iterator[Sequence[Event]]:
        with self._lock:
            job = self._job(job_id)
            head, rows = job.head, list(job.rows)
        end = head.version if until is None else min(until, head.version)
        if after >= end:
            return
        start = position_at(job_id, rows, after)
        wanted = [row for row in rows if after < row.version <= end]
        yield from read_to(job_id, wanted, start, end, head.hash if end == head.version else None)

    def tail(self, head: Head, known: Position) -> list[Event]:
        with self._lock:
            rows = [row for row in self._job(head.job_id).rows if known.version < row.version <= head.version]
        events = read_to(head.job_id, rows, known, head.version, head.hash)
        return list(unless_pruned(head.job_id, events, lambda: self.pruned(head.job_id)))

    def commit_mark(self) -> str:
        return str(len(self._feed))

    def feed(self, after: str | None = None, limit: int = PAGE_ENTRIES) -> FeedPage:
        start: int = parts_of(after, "memory", int)[0] if after is not None else 0
        with self._lock:
            if start > len(self._feed):
                raise FeedMoved
            entries = self._feed[start : start + max(limit, 1)]
            return FeedPage(entries, as_cursor("memory", start + len(entries)))

    def feed_end(self) -> str:
        with self._lock:
            return as_cursor("memory", len(self._feed))

    def open_job(self, job_id: str, reducer_version: int, until: int | None = None) -> Opened:
        with self._lock:
            stored = self._job(job_id).state_at(reducer_version, until)
        return Opened(stored, self.read(job_id, stored.position.version if stored else 0, until))

    def save_state(self, stored: StoredState) -> None:
        with self._lock:
            self._job(stored.job_id).keep(stored)

    def prune(self, job_id: str, at: Position) -> bool:
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or not job.has_ended_at(at):
                return False
            self._pruned[job_id] = Position(at.version, at.hash)
            job.rows.clear()
            job.states.clear()
            return True

    def pruned(self, job_id: str) -> Position | None:
        with self._lock:
            return self._pruned.get(job_id)

    @property
    def inspection(self) -> Inspection:
        return InspectionInMemory(self._jobs, self._keys)

    # --- workers -----------------------------------------------------------------------------------------------------

    def beat(self, worker_id: str, lease_s: float) -> Beat:
        with self._lock:
            self._require_alive(worker_id)
            heads = [job.head for job in self._jobs.values() if job.head.worker_id == worker_id]
            return Beat(self.now(), {head.job_id: (head.version, head.epoch) for head in heads})

    def owned_counts(self) -> dict[str, int]:
        with self._lock:
            return dict(Counter(head.worker_id for head in self._heads() if head.worker_id is not None))

    def longest_ready(self, limit: int) -> list[Head]:
        with self._lock:
            return longest_due(self._heads(), self.now())[: max(limit, 0)]

    def _versions(self) -> dict[str, int]:
        with self._lock:
            return {job_id: job.head.version for job_id, job in self._jobs.items()}

    # --- inside the lock ---------------------------------------------------------------------------------------------

    def _job(self, job_id: str) -> JobInMemory:
        if job_id not in self._jobs:
            raise JobNotFound(job_id)
        return self._jobs[job_id]

    def _heads(self) -> list[Head]:
        return [job.head for job in self._jobs.values()]

    def _is_owned(self, job_id: str) -> bool:
        return self._job(job_id).head.worker_id is not None

    def _await_head(self, job_id: str) -> None:
        self._let_go.wait_for(lambda: job_id not in self._jobs or not self._jobs[job_id].held)

    def _append(self, item: Append) -> Answer:
        if item.job_id not in self._jobs:
            return Answer(item.job_id, Code.MISSING, 0)
        job = self._jobs[item.job_id]
        if job.held:
            return Answer(item.job_id, Code.BUSY, job.head.version)
        head = job.head
        code = self._judged(job, item)
        if code is Code.STORED and head.version == item.expected.version:
            self._store(job, owned(head, None) if item.release else head, item.events, item.columns)
        return Answer(item.job_id, code, job.head.version)

    def _claim(self, item: Append, slots: Sequence[SlotWanted]) -> Answer:
        if item.job_id not in self._jobs:
            return Answer(item.job_id, Code.MISSING, 0)
        job = self._jobs[item.job_id]
        if job.held:
            return Answer(item.job_id, Code.BUSY, job.head.version)
        first, marks = item.expected.version, marks_of(job, item)
        code = judge_claim(item, job.head, lambda: marks)
        if code is Code.STORED and job.head.version == first:
            for wanted in slots:
                if not self._slots.take(wanted, item.job_id, self.now(), self._is_owned):
                    return Answer(item.job_id, Code.LIMITED, first, wanted.limit)
            self._store(job, owned(job.head, item.claim), item.events, item.columns)
        return Answer(item.job_id, code, job.head.version)

    def _judged(self, job: JobInMemory, item: Append) -> Code:
        return judge(item, job.head, lambda: marks_of(job, item))

    def _store(self, job: JobInMemory, head: Head, events: Sequence[NewEvent], columns: HeadColumns) -> None:
        end = end_of(events, head.position)
        job.rows.extend(row_of(event) for event in events)
        self._feed.extend(FeedEntry(event.job_id, event.version, event.type, event.recorded_at) for event in events)
        job.head = replace(head, version=end.version, hash=end.hash, recorded_at=end.recorded_at, columns=columns)


class _Ending:
    """How a handler's transaction ends: what it appends is stored when its database commits."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._held: JobInMemory | None = None
        self._staged: Append | None = None

    def append(self, item: Append) -> Answer:
        store = self._store
        with store._lock:
            if self._held is None:
                store._await_head(item.job_id)
            if item.job_id not in store._jobs:
                return Answer(item.job_id, Code.MISSING, 0)
            self._held = job = store._jobs[item.job_id]
            job.held, code = True, store._judged(job, item)
            self._staged = item if code is Code.STORED else None
            return Answer(item.job_id, code, item.events[-1].version if self._staged else job.head.version)

    def tail(self, job_id: str, known: Position) -> list[Event]:
        with self._store._lock:
            job = self._store._job(job_id)
            return tail_of(job.head, job.rows[known.version :], known)

    def commit(self) -> None:
        with self._store._lock:
            self._store._database.execute("COMMIT")
            if self._held is not None and (item := self._staged) is not None:
                head = owned(self._held.head, None) if item.release else self._held.head
                self._store._store(self._held, head, item.events, item.columns)

    def let_go(self) -> None:
        store = self._store
        if store._database.in_transaction:
            store._database.execute("ROLLBACK")
        with store._lock:
            if self._held is not None:
                self._held.held = False
            store._let_go.notify_all()
        store._database_turn.release()
