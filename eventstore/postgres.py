"""The log in PostgreSQL: the owner's append in one round trip, everybody else under the head's lock, leases by the
database's time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any
from uuid import uuid4

import psycopg

from steplog.eventstore import postgres_data_keys as data_keys
from steplog.eventstore import postgres_schedules
from steplog.eventstore import postgres_schema as schema_of
from steplog.eventstore import postgres_tables as tables
from steplog.eventstore import postgres_work as work
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import (
    DamagedLog,
    JobNotFound,
    JobOwned,
    KeyConflict,
    LogError,
    OutcomeUnknown,
    StoreError,
    WorkerDead,
)
from steplog.eventstore.events import Event
from steplog.eventstore.feed import PAGE_ENTRIES, FeedPage
from steplog.eventstore.postgres_address import shown_address
from steplog.eventstore.postgres_connections import Connections, Run, again
from steplog.eventstore.postgres_documents import (
    batch_parameters,
    head_document,
    item_parameters,
    job_document,
    job_documents,
)
from steplog.eventstore.postgres_feed import feed_end, read_feed
from steplog.eventstore.postgres_hints import Hints
from steplog.eventstore.postgres_inspection import PostgresInspection
from steplog.eventstore.postgres_lending import Lending
from steplog.eventstore.postgres_projected import PostgresProjected
from steplog.eventstore.postgres_transaction import PostgresTransaction
from steplog.eventstore.process_identity import certainly_dead
from steplog.eventstore.rows import StoredRow, as_row
from steplog.eventstore.schedules import ScheduleRow
from steplog.eventstore.store import (
    Answer,
    Append,
    BatchCount,
    Beat,
    Claim,
    ClaimRule,
    Code,
    Head,
    HeadQuery,
    Look,
    NewJob,
    Opened,
    Proposal,
    Rule,
    Slots,
    StoredState,
    Work,
    Worker,
    WorkerIdentity,
    WorkQuery,
)
from steplog.eventstore.stream import fetched_ahead, read_to, tail_of, unless_pruned

PAGE_ROWS = 1000
"""How many events one query of `read` fetches; between pages no transaction is open."""

_APPEND = """
select coalesce(json_agg(json_build_array(job_id, code, version)), '[]')
from {s}.append($1, $2, $3, $4, $5, $6, $7, $8)
"""
_APPEND_ONE = "select {s}.append_one($1, $2, $3, $4, $5, $6, $7, $8)"
_CREATE_JOB = "select code, job_id::text from {s}.create_job(%s)"
_CREATE_JOBS = "select place, code, job_id::text from {s}.create_jobs(%s, %s) order by place"
_APPEND_TO_HEAD = "select true from {s}.append_to_head(%s)"
_PRUNE = "select {s}.prune_job(%s, %s, %s)"
_PRUNED = "select version, hash from {s}.pruned where job_id = %s"
_NOW = "select {s}.instant(clock_timestamp())"


class PostgresStore:
    """The store in one schema of a PostgreSQL database. `migrate` makes the schema; nothing else does.

    With `portable` a batch is sent as a pipeline of calls of one job each, as a distributed PostgreSQL needs it, each a
    transaction of its own; by default the database is asked. A server that says nothing for `answer_s_max` is given up.
    """

    stops_writers = False

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "steplog",
        lock_timeout_s: float = 5.0,
        answer_s_max: float = 30.0,
        portable: bool | None = None,
    ) -> None:
        self._schema = schema
        self._lock_timeout_s = lock_timeout_s
        self._portable = portable
        self._connections = Connections(
            dsn,
            schema,
            lock_timeout_s=lock_timeout_s,
            answer_s_max=answer_s_max,
            check=lambda connection: schema_of.check(connection, schema),
        )
        self._hints = Hints(self._connections, schema)
        self._lending = Lending(self._connections.own, self._connections.refuse_unless_usable)
        self.url = shown_address(dsn)

    # --- the store itself --------------------------------------------------------------------------------------------

    def migrate(self, *, dry_run: bool = False) -> list[str]:
        applied = self._connections.migration(
            lambda connection: schema_of.bring_up_to_date(connection, self._schema, dry_run=dry_run),
            keep=not dry_run,
        )
        return [migration.title for migration in applied]

    def close(self) -> None:
        self._hints.close()
        self._connections.close()
        self._lending.close()

    def now(self) -> str:
        return str(self._read(_NOW, [])[0][0])

    # --- writing the log ---------------------------------------------------------------------------------------------

    def create(self, job: NewJob) -> str:
        (created,) = self.create_many([job])
        if isinstance(created, StoreError):
            raise created
        return created

    def create_many(self, batch: Sequence[NewJob]) -> list[str | StoreError]:
        rows = self._connections.transaction(lambda run: _create(run, batch))
        if [place for place, _, _ in rows] != list(range(1, len(batch) + 1)):
            raise OutcomeUnknown(f"{len(rows)} answers came back that do not belong to the {len(batch)} jobs sent")
        return [_created(job, code, job_id) for job, (_, code, job_id) in zip(batch, rows, strict=True)]

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        return again(lambda: _answers(batch, self._sent(batch)))

    def append_waiting(self, item: Append) -> Answer:
        """The same for one job, on another connection, once its head's lock is free; busy if that is not in time."""

        def locked(run: Run) -> Answer:
            tables.lock_head(run, item.job_id)
            return tables.append_one(run, item)

        try:
            return self._connections.transaction_once(locked)
        except JobNotFound:
            return Answer(item.job_id, Code.MISSING, 0)
        except psycopg.Error:
            return Answer(item.job_id, Code.BUSY, item.expected.version)

    def _sent(self, batch: Sequence[Append]) -> list[tuple[str, str, int]]:
        """What the database answers: job, code and version, in any order."""
        is_portable = self._is_portable()
        if len(batch) == 1:
            return [self._connections.write(_APPEND_ONE, item_parameters(batch[0]))]
        if is_portable:
            return self._connections.write_each(tables.APPEND_ONE, [item_parameters(item) for item in batch])
        answers: list[tuple[str, str, int]] = self._connections.write(_APPEND, batch_parameters(batch))
        return answers

    def _is_portable(self) -> bool:
        if self._portable is None:
            self._portable = tables.is_distributed(self._read)
        return self._portable

    def append_locked(self, job_id: str, known: Position, rule: Rule, *, request_id: str | None = None) -> int:
        def locked(run: Run) -> int:
            head = tables.lock_head(run, job_id)
            if request_id is not None:
                version = tables.version_of_request(run, job_id, request_id)
                if version is not None:
                    return version
            proposal = rule(head, _tail(run, head, known))
            if proposal is None and request_id is None:
                return head.version
            proposal = proposal or Proposal([], head.columns)
            return _store(run, head, proposal, claim=proposal.claim, request_id=request_id)

        return self._connections.transaction(locked)

    def begin(self, timeout_s: float | None = None) -> PostgresTransaction:
        return PostgresTransaction(
            self._lending, self._connections.sql, timeout_s=timeout_s, lock_timeout_s=self._lock_timeout_s
        )

    def claim(self, job_id: str, worker_id: str, known: Position, rule: ClaimRule) -> Claim:
        """Make the worker the job's owner, as the protocol says.

        A worker may claim anew a job that it owns: its former claim is fenced.
        """

        def locked(run: Run) -> Claim:
            head = tables.lock_head(run, job_id)
            claimant = tables.find_worker(run, worker_id)
            if claimant is None or claimant.state != "alive":
                raise WorkerDead(worker_id)
            if head.worker_id is not None and head.worker_id != worker_id:
                _require_dead(run, head, head.worker_id)
            claim = Claim(worker_id, head.epoch + 1, uuid4().hex)
            _store(run, head, rule(head, _tail(run, head, known), claim), claim=claim)
            return claim

        return self._connections.transaction(locked)

    def claim_many(self, batch: Sequence[Append], slots: Slots | None = None) -> list[Answer]:
        return self._connections.transaction(lambda run: work.claim_many(run, batch, slots or {})) if batch else []

    def abandon(self, job_id: str, claim: Claim) -> None:
        work.abandon(self._read, job_id, claim)

    # --- finding work ------------------------------------------------------------------------------------------------

    def look_for_work(self, query: WorkQuery) -> Work:
        return work.look(self._read, query)

    def read_heads(self, heads: Sequence[Head]) -> dict[str, list[Event] | LogError]:
        return work.read_heads(self._read, heads) if heads else {}

    def hint(self) -> None:
        """Sent a moment later where one was sent just before: many jobs submitted one by one wake workers once."""
        self._hints.send()

    def await_hint(self, timeout_s: float) -> bool:
        return self._hints.wait(timeout_s)

    # --- reading the log ---------------------------------------------------------------------------------------------

    def head(self, job_id: str) -> Head:
        return tables.get_head(self._read, job_id)

    def heads_of(self, job_ids: Sequence[str]) -> list[Head]:
        return tables.get_heads(self._read, job_ids)

    def look_at(self, job_id: str) -> Look:
        return tables.look_at(self._read, job_id)

    def heads(self, query: HeadQuery) -> list[Head]:
        return tables.list_heads(self._read, query)

    def counts(self) -> dict[str, dict[str, int]]:
        return tables.count_jobs(self._read)

    def batches(self, batch_id: str | None = None, limit: int = 50) -> list[BatchCount]:
        return work.batches(self._read, batch_id, limit)

    def find(self, suffix: str, limit: int = 10) -> list[str]:
        return tables.job_ids_ending_in(self._read, suffix, limit)

    def job_of_key(self, workflow: str | None, key: str) -> list[str]:
        return tables.jobs_of_key(self._read, workflow, key)

    def read(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Event]:
        return unless_pruned(job_id, self._events(job_id, after, until), lambda: self.pruned(job_id))

    def _events(self, job_id: str, after: int, until: int | None) -> Iterator[Sequence[Event]]:
        head = self.head(job_id)
        end = head.version if until is None else min(until, head.version)
        if after >= end:
            return
        start = self._position(job_id, after)
        end_hash = head.hash if end == head.version else None
        yield from read_to(job_id, self._rows(job_id, after, end), start, end, end_hash)

    def tail(self, head: Head, known: Position) -> list[Event]:
        rows = tables.rows_after(self._read, head.job_id, known.version, head.version)
        events = read_to(head.job_id, rows, known, head.version, head.hash)
        return list(unless_pruned(head.job_id, events, lambda: self.pruned(head.job_id)))

    def commit_mark(self) -> None:
        return None

    def feed(self, after: str | None = None, limit: int = PAGE_ENTRIES) -> FeedPage:
        return read_feed(self._read, after, limit)

    def feed_end(self) -> str:
        return feed_end(self._read)

    def open_job(self, job_id: str, reducer_version: int, until: int | None = None) -> Opened:
        version, hash, stored, first = tables.open_job(self._read, job_id, reducer_version, until, PAGE_ROWS)
        start, end = stored.position if stored else Position(), version if until is None else min(until, version)
        more = self._rows(job_id, first[-1][0], end) if len(first) == PAGE_ROWS else ()
        events = read_to(job_id, chain(first, more), start, end, hash if end == version else None)
        return Opened(stored, unless_pruned(job_id, events, lambda: self.pruned(job_id)))

    def save_state(self, stored: StoredState) -> None:
        tables.insert_state(self._read, stored)

    def prune(self, job_id: str, at: Position) -> bool:
        ((done,),) = self._connections.transaction(lambda run: run(_PRUNE, [job_id, at.version, at.hash]))
        return bool(done)

    def pruned(self, job_id: str) -> Position | None:
        rows = self._read(_PRUNED, [tables.job_uuid(job_id)])
        return Position(*rows[0]) if rows else None

    @property
    def inspection(self) -> PostgresInspection:
        return PostgresInspection(self._read, self._rows)

    @property
    def projected(self) -> PostgresProjected:
        return PostgresProjected(self._read, self._connections.transaction, self._schema)

    @property
    def data_keys(self) -> data_keys.PostgresDataKeys:
        return data_keys.PostgresDataKeys(self._read, self._connections.transaction)

    def _position(self, job_id: str, version: int) -> Position:
        if version <= 0:
            return Position()
        rows = tables.rows_after(self._read, job_id, version - 1, version)
        if not rows:
            raise DamagedLog(job_id, version, "missing")
        row = as_row(rows[0])
        return Position(version, row.hash, row.recorded_at)

    def _rows(self, job_id: str, after: int, until: int | None) -> Iterator[StoredRow]:
        pages = self._pages(job_id, after, until)
        first = list(islice(pages, 1))
        more = fetched_ahead(pages) if first and len(first[0]) == PAGE_ROWS else pages
        return chain.from_iterable(chain(first, more))

    def _pages(self, job_id: str, after: int, until: int | None) -> Iterator[Sequence[StoredRow]]:
        while page := tables.rows_after(self._read, job_id, after, until, PAGE_ROWS):
            yield page
            after = page[-1][0]
            if until is not None and after >= until:
                return

    # --- schedules ---------------------------------------------------------------------------------------------------

    def see_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        return postgres_schedules.see(self._read, schedule)

    def schedule_fired(self, workflow: str, name: str, at: str) -> None:
        postgres_schedules.fired(self._read, workflow, name, at)

    def schedules(self) -> list[ScheduleRow]:
        return postgres_schedules.list_schedules(self._read)

    # --- workers -----------------------------------------------------------------------------------------------------

    def register_worker(self, worker: WorkerIdentity, lease_s: float) -> None:
        """Make a worker known as alive. Raises WorkerDead if its id is used up: ids are never used again."""
        tables.insert_worker(self._read, worker, lease_s)
        stored = tables.find_worker(self._read, worker.worker_id)
        if stored is None or stored.identity != worker or stored.state != "alive":
            raise WorkerDead(worker.worker_id)

    def beat(self, worker_id: str, lease_s: float) -> Beat:
        answer = tables.beat(self._read, worker_id, lease_s)
        if answer is None:
            raise WorkerDead(worker_id)
        return answer

    def retire_worker(self, worker_id: str) -> None:
        tables.end_worker(self._read, worker_id, "stopped")

    def owned_counts(self) -> dict[str, int]:
        return work.owned_counts(self._read)

    def longest_ready(self, limit: int) -> list[Head]:
        return work.longest_ready(self._read, limit)

    def workers(self) -> list[Worker]:
        return tables.list_workers(self._read)

    @property
    def _read(self) -> Run:
        """Runs one statement that may be run twice."""
        return self._connections.rows


def _create(run: Run, batch: Sequence[NewJob]) -> list[tuple[Any, ...]]:
    """What became of each: its place in the batch, a code, the id of the job that there is. One alone costs less so."""
    if len(batch) == 1:
        rows = [(1, *row) for row in run(_CREATE_JOB, [job_document(batch[0])])]
    else:
        rows = run(_CREATE_JOBS, job_documents(batch))
    data_keys.insert_of(run, [batch[place - 1] for place, code, _ in rows if code == "stored"])
    return rows


def _created(job: NewJob, code: str, job_id: str) -> str | StoreError:
    """The id of a job that was asked for, or why there is none."""
    if code == "worker dead":
        return WorkerDead(job.claim.worker_id if job.claim else "")
    if code == "key conflict":
        return KeyConflict(job.columns.workflow, job.columns.key or "", job_id)
    return job_id


def _answers(batch: Sequence[Append], rows: Sequence[tuple[str, str, int]]) -> list[Answer]:
    """The answers in the batch's order. Raises OutcomeUnknown unless each item has exactly its own."""
    answers = {job_id: Answer(job_id, Code(code), version) for job_id, code, version in rows}
    if len(rows) != len(batch) or any(item.job_id not in answers for item in batch):
        raise OutcomeUnknown(f"{len(rows)} answers came back that do not belong to the {len(batch)} appends sent")
    return [answers[item.job_id] for item in batch]


def _tail(run: Run, head: Head, known: Position) -> list[Event]:
    return tail_of(head, tables.rows_after(run, head.job_id, known.version), known)


def _store(
    run: Run, head: Head, proposal: Proposal, *, claim: Claim | None = None, request_id: str | None = None
) -> int:
    """Put the proposal behind the locked head; the job's version after it."""
    head = replace(head, epoch=max(head.epoch, proposal.epoch))
    run(_APPEND_TO_HEAD, [head_document(head, proposal.events, proposal.columns, claim, request_id)])
    if proposal.erases:
        data_keys.erase(run, head.job_id)
    return head.version + len(proposal.events)


def _require_dead(run: Run, head: Head, owner_id: str) -> None:
    """Declare the job's owner dead if it is. Raises JobOwned while it lives or may live."""
    if tables.expire_worker(run, owner_id):
        return
    owner = tables.find_worker(run, owner_id)
    if owner is None or owner.state != "alive":
        return
    if not certainly_dead(owner.identity):
        where = f"on {owner.identity.host}, pid {owner.identity.pid}"
        raise JobOwned(head.job_id, owner_id, owner.expires_at, where)
    tables.end_worker(run, owner_id, "dead")
