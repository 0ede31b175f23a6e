"""The log in one SQLite file, with nothing to install: WAL, one durable commit per write, liveness by record locks.

Every write is one BEGIN IMMEDIATE transaction, so whoever writes sees all that was committed and nobody comes between.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from steplog.eventstore import sqlite_data_keys as data_keys
from steplog.eventstore import sqlite_log as log
from steplog.eventstore import sqlite_schedules
from steplog.eventstore import sqlite_schema as schema
from steplog.eventstore import sqlite_states as states
from steplog.eventstore import sqlite_tables as tables
from steplog.eventstore import sqlite_work as work
from steplog.eventstore.chain import Position
from steplog.eventstore.clock import Clock, SystemClock
from steplog.eventstore.errors import (
    DamagedLog,
    JobOwned,
    LogError,
    StoreDamaged,
    StoreError,
    StoreMissing,
    StoreNotMigrated,
)
from steplog.eventstore.events import Event
from steplog.eventstore.feed import PAGE_ENTRIES, FeedPage
from steplog.eventstore.migrations import Migration, known_migrations
from steplog.eventstore.rows import StoredRow
from steplog.eventstore.schedules import ScheduleRow
from steplog.eventstore.sqlite_backup import back_up
from steplog.eventstore.sqlite_connections import Connections
from steplog.eventstore.sqlite_creating import create, created_or_why_not
from steplog.eventstore.sqlite_ending import EndingInFile
from steplog.eventstore.sqlite_feed import feed_end, read_feed
from steplog.eventstore.sqlite_inspection import SQLiteInspection
from steplog.eventstore.sqlite_projected import SQLiteProjected
from steplog.eventstore.sqlite_pruning import prune_job, pruned_at
from steplog.eventstore.sqlite_transaction import SQLiteTransaction
from steplog.eventstore.sqlite_workers import byte_for, lives, require_alive
from steplog.eventstore.store import (
    Answer,
    Append,
    BatchCount,
    Beat,
    Claim,
    ClaimRule,
    Head,
    HeadQuery,
    Look,
    NewJob,
    Opened,
    Rule,
    Slots,
    StoredState,
    Work,
    Worker,
    WorkerIdentity,
    WorkQuery,
)
from steplog.eventstore.stream import logs_of, read_to, unless_pruned

PAGE_ROWS = 500
"""How many events one query of `read` fetches; between pages no transaction is open."""

TRANSACTION_S_MAX = 5.0
"""How long a handler's transaction may stop every other writer, unless its sub-step says."""


class SQLiteStore:
    """The store in a SQLite file.

    With `create`, a file that is missing or not up to date is made and migrated at the first use; without, a missing
    file raises StoreMissing here and an old one at the first use.
    """

    stops_writers = True

    def __init__(
        self, path: Path, *, create: bool = True, busy_timeout_s: float = 10.0, clock: Clock | None = None
    ) -> None:
        if not create and not os.path.exists(path):
            raise StoreMissing(f"there is no database at {path.absolute()}")
        self.url = f"sqlite:///{path}"
        self._path = path
        self._create = create
        self._clock = clock or SystemClock()
        self._connections = Connections(path, create=create, busy_timeout_s=busy_timeout_s)
        self._bytes: dict[str, int] = {}
        self._migrating = threading.Lock()
        self._migrated = False

    # --- the store itself --------------------------------------------------------------------------------------------

    def migrate(self, *, dry_run: bool = False) -> list[str]:
        if dry_run:
            return [migration.title for migration in self._lacking()]
        with self._connections.writing() as connection:
            lacking = schema.lacking(connection)
            for migration in lacking:
                schema.apply(connection, migration, self.now())
        self._migrated = True
        return [migration.title for migration in lacking]

    def close(self) -> None:
        """Let go of connections and files. A worker registered here that was not retired is as good as dead."""
        for worker_id in list(self._bytes):
            self._free(worker_id)
        self._connections.close()

    def backup(self, path: Path) -> None:
        """Copy the log into a new file, while others go on. Raises StoreUnavailable where that cannot be written."""
        with self._reading() as connection:
            back_up(connection, path)

    def now(self) -> str:
        return self._clock.now()

    # --- writing the log ---------------------------------------------------------------------------------------------

    def create(self, job: NewJob) -> str:
        with self._writing() as connection:
            return create(connection, job)

    def create_many(self, batch: Sequence[NewJob]) -> list[str | StoreError]:
        with self._writing() as connection:
            return [created_or_why_not(connection, job) for job in batch]

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        with self._writing() as connection:
            return log.append(connection, batch)

    def append_waiting(self, item: Append) -> Answer:
        """The same: every write waits its turn."""
        return self.append([item])[0]

    def append_locked(self, job_id: str, known: Position, rule: Rule, *, request_id: str | None = None) -> int:
        with self._writing() as connection:
            head = tables.get_head(connection, job_id)
            if request_id is not None:
                version = tables.version_of_request(connection, job_id, request_id)
                if version is not None:
                    return version
            proposal = rule(head, log.tail(connection, head, known))
            if proposal:
                head = replace(head, epoch=max(head.epoch, proposal.epoch))
                head = log.owned(head, proposal.claim) if proposal.claim else head
                head = log.store(connection, head, proposal.events, proposal.columns)
                if proposal.erases:
                    data_keys.erase(connection, job_id, self.now())
            if request_id is not None:
                tables.insert_request(connection, job_id, request_id, head.version)
            return head.version

    def begin(self, timeout_s: float | None = None) -> SQLiteTransaction:
        """Open a transaction, as the protocol says; without a timeout it has 5 s, for meanwhile nobody else writes."""
        self._bring_up_to_date()
        connection = self._connections.begin_own()
        limit_s = TRANSACTION_S_MAX if timeout_s is None else timeout_s
        transaction = SQLiteTransaction(connection, EndingInFile(self._connections, connection), limit_s)
        self._connections.watchdog.watch(transaction.roll_back, limit_s)
        return transaction

    def claim(self, job_id: str, worker_id: str, known: Position, rule: ClaimRule) -> Claim:
        """Make the worker the job's owner, as the protocol says.

        A worker may claim anew a job that it owns: its former claim is fenced.
        """
        with self._writing() as connection:
            head = tables.get_head(connection, job_id)
            require_alive(connection, worker_id)
            if head.worker_id is not None and head.worker_id != worker_id:
                self._require_dead(connection, head, head.worker_id)
            claim = Claim(worker_id, head.epoch + 1, uuid4().hex)
            proposal = rule(head, log.tail(connection, head, known), claim)
            log.store(connection, log.owned(head, claim), proposal.events, proposal.columns)
            return claim

    def claim_many(self, batch: Sequence[Append], slots: Slots | None = None) -> list[Answer]:
        if not batch:
            return []
        with self._writing() as connection:
            require_alive(connection, batch[0].claim.worker_id)
            return work.claim_many(connection, batch, slots or {}, self.now())

    def abandon(self, job_id: str, claim: Claim) -> None:
        with self._writing() as connection:
            work.abandon(connection, job_id, claim)

    # --- finding work ------------------------------------------------------------------------------------------------

    def look_for_work(self, query: WorkQuery) -> Work:
        with self._reading() as connection:
            return work.look(connection, query, self.now(), partial(self._has_died, connection))

    def read_heads(self, heads: Sequence[Head]) -> dict[str, list[Event] | LogError]:
        return logs_of(heads, lambda head: self._rows(head.job_id, 0, head.version))

    def hint(self) -> None:
        """Nothing to send: every commit is seen by whoever waits for a hint."""

    def await_hint(self, timeout_s: float) -> bool:
        self._bring_up_to_date()
        return self._connections.await_commit(timeout_s)

    # --- reading the log ---------------------------------------------------------------------------------------------

    def head(self, job_id: str) -> Head:
        with self._reading() as connection:
            return tables.get_head(connection, job_id)

    def heads_of(self, job_ids: Sequence[str]) -> list[Head]:
        with self._reading() as connection:
            return tables.get_heads(connection, job_ids)

    def look_at(self, job_id: str) -> Look:
        with self._reading() as connection:
            head, owner = tables.get_head_and_owner(connection, job_id)
        return Look(head, owner, self.now())

    def heads(self, query: HeadQuery) -> list[Head]:
        with self._reading() as connection:
            return tables.list_heads(connection, query)

    def counts(self) -> dict[str, dict[str, int]]:
        with self._reading() as connection:
            return tables.count_jobs(connection)

    def batches(self, batch_id: str | None = None, limit: int = 50) -> list[BatchCount]:
        with self._reading() as connection:
            return work.batches(connection, batch_id, limit)

    def find(self, suffix: str, limit: int = 10) -> list[str]:
        with self._reading() as connection:
            return tables.job_ids_ending_in(connection, suffix, limit)

    def job_of_key(self, workflow: str | None, key: str) -> list[str]:
        with self._reading() as connection:
            return tables.jobs_of_key(connection, workflow, key)

    def read(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Event]:
        return unless_pruned(job_id, self._events(job_id, after, until), lambda: self.pruned(job_id))

    def _events(self, job_id: str, after: int, until: int | None) -> Iterator[Sequence[Event]]:
        with self._reading() as connection:
            head = tables.get_head(connection, job_id)
            end = head.version if until is None else min(until, head.version)
            if after >= end:
                return
            start = log.position_at(connection, job_id, after)
        yield from read_to(
            job_id, self._rows(job_id, after, end), start, end, head.hash if end == head.version else None
        )

    def tail(self, head: Head, known: Position) -> list[Event]:
        rows = self._rows(head.job_id, known.version, head.version, head.version)
        events = read_to(head.job_id, rows, known, head.version, head.hash)
        return list(unless_pruned(head.job_id, events, lambda: self.pruned(head.job_id)))

    def commit_mark(self) -> str:
        self._bring_up_to_date()
        return self._connections.commit_mark()

    def feed(self, after: str | None = None, limit: int = PAGE_ENTRIES) -> FeedPage:
        with self._reading() as connection:
            return read_feed(connection, after, limit)

    def feed_end(self) -> str:
        with self._reading() as connection:
            return feed_end(connection)

    def open_job(self, job_id: str, reducer_version: int, until: int | None = None) -> Opened:
        with self._reading() as connection:
            version, hash, stored = states.open_job(connection, job_id, reducer_version, until)
        end = version if until is None else min(until, version)
        start = stored.position if stored else Position()
        rows = self._rows(job_id, start.version, end) if start.version < end else ()
        events = read_to(job_id, rows, start, end, hash if end == version else None)
        return Opened(stored, unless_pruned(job_id, events, lambda: self.pruned(job_id)))

    def save_state(self, stored: StoredState) -> None:
        with self._writing() as connection:
            states.insert_state(connection, stored)

    def prune(self, job_id: str, at: Position) -> bool:
        with self._writing() as connection:
            return prune_job(connection, job_id, at, self.now())

    def pruned(self, job_id: str) -> Position | None:
        with self._reading() as connection:
            return pruned_at(connection, job_id)

    @property
    def inspection(self) -> SQLiteInspection:
        return SQLiteInspection(self._reading, self._rows)

    @property
    def projected(self) -> SQLiteProjected:
        return SQLiteProjected(self._reading, self._writing, self.now)

    @property
    def data_keys(self) -> data_keys.SQLiteDataKeys:
        return data_keys.SQLiteDataKeys(self._reading, self._writing)

    # --- schedules ---------------------------------------------------------------------------------------------------

    def see_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        with self._writing() as connection:
            return sqlite_schedules.see(connection, schedule, self.now())

    def schedule_fired(self, workflow: str, name: str, at: str) -> None:
        with self._writing() as connection:
            sqlite_schedules.fired(connection, workflow, name, at)

    def schedules(self) -> list[ScheduleRow]:
        with self._reading() as connection:
            return sqlite_schedules.list_schedules(connection)

    # --- workers -----------------------------------------------------------------------------------------------------

    def register_worker(self, worker: WorkerIdentity, lease_s: float) -> None:
        """Lock a byte for the worker, then commit its row: nobody sees a living worker whose byte is free."""
        if worker.worker_id in self._bytes:
            with self._reading() as connection:
                require_alive(connection, worker.worker_id)
            return
        locks, byte = self._connections.locks, 0
        try:
            with self._writing() as connection:
                byte = byte_for(connection, worker, self.now())
                if not locks.take(byte):
                    raise StoreError(f"byte {byte} of the lock file is taken: it serves another database too")
        except BaseException:
            if byte:
                locks.free(byte)
            raise
        self._bytes[worker.worker_id] = byte

    def beat(self, worker_id: str, lease_s: float) -> Beat:
        """A read: nothing is written to stay alive."""
        if worker_id in self._bytes:
            self._connections.locks.renew(self._bytes[worker_id])
        with self._reading() as connection:
            require_alive(connection, worker_id)
            return Beat(self.now(), tables.jobs_of_worker(connection, worker_id))

    def retire_worker(self, worker_id: str) -> None:
        try:
            with self._writing() as connection:
                tables.end_worker(connection, worker_id, "stopped", self.now())
        finally:  # a worker that ends where nothing can be written is found dead
            self._free(worker_id)

    def owned_counts(self) -> dict[str, int]:
        with self._reading() as connection:
            return work.owned_counts(connection)

    def longest_ready(self, limit: int) -> list[Head]:
        with self._reading() as connection:
            return work.longest_ready(connection, limit, self.now())

    def workers(self) -> list[Worker]:
        with self._reading() as connection:
            return list(tables.list_workers(connection))

    def _require_dead(self, connection: sqlite3.Connection, head: Head, owner_id: str) -> None:
        """Mark the job's owner dead if it is; the transaction keeps two from probing it at once."""
        owner = tables.find_worker(connection, owner_id)
        if owner is None or owner.state != "alive":
            return
        if lives(self._connections.locks, owner):
            where = f"on {owner.identity.host}, pid {owner.identity.pid}"
            raise JobOwned(head.job_id, owner_id, None, where)
        tables.end_worker(connection, owner_id, "dead", self.now())

    def _has_died(self, connection: sqlite3.Connection, worker_id: str) -> bool:
        """Whether a worker has ended or its byte is free; probed without the one write lock, so it may be taken for
        living by mistake while another process probes it too, and the claim makes sure of the rest.
        """
        owner = tables.find_worker(connection, worker_id)
        return owner is None or owner.state != "alive" or not lives(self._connections.locks, owner)

    def _free(self, worker_id: str) -> None:
        byte = self._bytes.pop(worker_id, None)
        if byte is not None:
            self._connections.locks.free(byte)

    # --- connections -------------------------------------------------------------------------------------------------

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        self._bring_up_to_date()
        return self._connections.reading()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; the first of a new connection writes in any case.

        What stands in the file may be on no disk: its commit failed, or its process died before it was flushed. "Stored
        before" acknowledges it only behind a commit of our own, and a commit that changes nothing flushes nothing.
        """
        self._bring_up_to_date()
        with self._connections.writing() as connection:
            if not self._connections.flushed:
                tables.rewrite_newest_head(connection)
            yield connection

    def _bring_up_to_date(self) -> None:
        if self._migrated:
            return
        with self._migrating:
            lacking = [] if self._migrated else self._lacking()
            if lacking and not self._create:
                raise StoreNotMigrated(f"{self._path} lacks {len(lacking)} migrations, the first {lacking[0].title}")
            if lacking:
                self.migrate()
            self._migrated = True

    def _lacking(self) -> list[Migration]:
        if not os.path.exists(self._path):
            return known_migrations("sqlite")
        with self._connections.reading() as connection:
            return schema.lacking(connection)

    def _rows(self, job_id: str, after: int, until: int, limit: int = PAGE_ROWS) -> Iterator[StoredRow]:
        """The stored rows page by page; where a page is damaged row by row, so that the damage has a version."""
        while True:
            try:
                with self._reading() as connection:
                    page = tables.rows_after(connection, job_id, after, until, limit)
            except StoreDamaged as error:
                if limit == 1:
                    raise DamagedLog(job_id, after + 1, str(error)) from error
                limit = 1
                continue
            if not page:
                return
            yield from page
            after = page[-1][0]
            if after >= until:
                return
