"""The one contract of a store: what PostgreSQL, SQLite and the in-memory store all do, held by one compliance suite.

Stores are blocking. Every method may be called from any thread. No driver's exception leaves a store: each is one of
`errors.py`. Rules (what may be appended) come in as functions or as sealed events; a store knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol

from steplog.eventstore.chain import Position
from steplog.eventstore.data_keys import DataKeys
from steplog.eventstore.errors import LogError, StoreError
from steplog.eventstore.events import Event, NewEvent
from steplog.eventstore.feed import PAGE_ENTRIES, FeedPage
from steplog.eventstore.heads import BatchCount as BatchCount
from steplog.eventstore.heads import Claim as Claim
from steplog.eventstore.heads import Head as Head
from steplog.eventstore.heads import HeadColumns as HeadColumns
from steplog.eventstore.heads import HeadQuery as HeadQuery
from steplog.eventstore.heads import SlotWanted as SlotWanted
from steplog.eventstore.heads import Work as Work
from steplog.eventstore.heads import WorkQuery as WorkQuery
from steplog.eventstore.inspection import Inspection
from steplog.eventstore.inspection import StoredState as StoredState
from steplog.eventstore.projected import Projected
from steplog.eventstore.schedules import ScheduleRow
from steplog.eventstore.transaction import Rows


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be created: its first events, and its owner if it starts at once."""

    job_id: str
    events: Sequence[NewEvent]
    columns: HeadColumns
    input_hash: str
    claim: Claim | None = None
    epoch: int = 0
    """How many claims its events tell of, where it comes from elsewhere and has no owner."""
    data_key: str | None = None
    """The key to its sealed values, wrapped, where it has one from the beginning; stored if and when the job is."""


class Append(NamedTuple):
    """The owner's next events of one job, to be stored behind `expected` or not at all."""

    job_id: str
    expected: Position
    claim: Claim
    events: Sequence[NewEvent]
    columns: HeadColumns
    release: bool = False
    """Whether the job has no owner afterwards."""


class Code(StrEnum):
    """How an owner's append ended. Never an exception: one batch holds many jobs."""

    STORED = "stored"
    CONFLICT = "conflict"
    """Somebody else appended: read the tail and decide again."""
    FENCED = "fenced"
    """Another claim owns the job: stop."""
    BUSY = "busy"
    """The head was locked: send it again alone, with `append_waiting`."""
    REGRESSED = "regressed"
    """The log is behind what was acknowledged: it went backwards."""
    MISSING = "missing"
    LIMITED = "limited"
    """Only of a claim: a limit of the fleet is used up for now."""


class Answer(NamedTuple):
    """What became of one Append; `version` is the head's after it (0 if missing)."""

    job_id: str
    code: Code
    version: int
    limit: str | None = None
    """The limit that is used up, where the code is LIMITED."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a rule wants appended under the head's lock."""

    events: Sequence[NewEvent]
    columns: HeadColumns
    epoch: int = 0
    """How many claims the events tell of, where they come from elsewhere; the head's epoch never falls."""
    claim: Claim | None = None
    """A recorder's claim that the events begin with: it fences every one before it."""
    erases: bool = False
    """Whether the job's data key is destroyed with it, for good."""


Slots = Mapping[str, Sequence[SlotWanted]]
"""By job, what its claim takes."""

Rule = Callable[[Head, Sequence[Event]], Proposal | None]
"""From the locked head and the events since the version the caller knows, what to append; None appends nothing.

What the rule raises leaves the log untouched and reaches the caller."""

ClaimRule = Callable[[Head, Sequence[Event], Claim], Proposal]
"""The same for a claim; its events begin with JobClaimed."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who a worker is, exactly enough to tell on its own machine whether that very process still lives."""

    worker_id: str
    host: str
    pid: int
    boot_id: str | None
    pid_namespace: str | None
    process_started: str | None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's row."""

    identity: WorkerIdentity
    state: Literal["alive", "dead", "stopped"]
    started_at: str
    expires_at: str | None


class Look(NamedTuple):
    """A job's row, that of its owner if a worker owns it, and the store's time, as of one moment."""

    head: Head
    owner: Worker | None
    now: str


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat brings back: the store's time and the heads of the worker's jobs."""

    now: str
    jobs: dict[str, tuple[int, int]]
    """Version and epoch by job id, of the jobs that this worker owns by the store's account."""


class StoreTransaction(Protocol):
    """A handler's own transaction, open from `Store.begin` until it is committed or rolled back, usable in any thread.

    Once a statement has failed nothing can be committed, on any store, unless the handler goes back to a savepoint that
    it had set before.
    """

    timeout_s: float | None
    """How long it may stay open; None where nobody said."""

    @property
    def is_lost(self) -> bool:
        """Whether the database went away inside it: nothing is committed, through no fault of the handler's."""
        ...

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement, with a parameter for each `%s` in it.

        Raises StatementFailed where the database refuses it, TransactionEnded where it ended the transaction,
        TransactionClosed once that is over, StoreUnavailable where the database went away: nothing is committed then.
        """
        ...

    def execute_many(self, statement: str, each: Iterable[Sequence[Any]]) -> Rows:
        """Run one statement once with each of the parameters; only their count comes back."""
        ...

    def append(self, item: Append) -> Answer:
        """Put the owner's append behind the statements: it is stored if and when the transaction is committed.

        Waits a while for a head that is locked, and answers `busy` if that was not in time. After any other answer the
        head is held until the transaction ends: after `conflict`, what is decided on `tail` meets no other. Raises
        TransactionEnded, StatementFailed where an earlier statement failed, StoreUnavailable.
        """
        ...

    def tail(self, job_id: str, known: Position) -> list[Event]:
        """What stands behind `known`, up to the head that `append` holds."""
        ...

    def commit(self) -> None:
        """Make statements and append durable together, and let go of the connection.

        Raises OutcomeUnknown where nobody knows: the same append must not be sent again, for that would store it
        without the statements. Raises StatementFailed where nothing was committed.
        """
        ...

    def roll_back(self) -> None:
        """Undo everything, stop a statement that is running, let go of the connection. Twice is once."""
        ...


class Opened(NamedTuple):
    """What a job is folded from: a stored state of it if there is one, and the checked events behind that."""

    stored: StoredState | None
    events: Iterator[Event]


class Store(Protocol):
    """An append-only log of jobs, with their heads, workers and stored states."""

    url: str
    """Where it is, with passwords masked."""

    stops_writers: bool
    """Whether nobody else can write while a transaction of `begin` is open."""

    def migrate(self, *, dry_run: bool = False) -> list[str]:
        """Bring the schema up to date; the names of the migrations applied (or that would be)."""
        ...

    def close(self) -> None:
        """Let go of connections and files; the log stays."""
        ...

    def now(self) -> str:
        """The store's time."""
        ...

    def create(self, job: NewJob) -> str:
        """Store a new job and return its id.

        Where the job's key is taken: by the same input, the id of the job that has it; by another, KeyConflict.
        The same NewJob again (same event ids) is not stored twice.
        """
        ...

    def create_many(self, batch: Sequence[NewJob]) -> list[str | StoreError]:
        """The same for many jobs in one transaction: ids in the order given, KeyConflict or WorkerDead where a job
        was not stored.
        """
        ...

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        """Store each job's events or none of them, in one transaction for the batch (at most one item a job).

        Answers come in the order of the batch. Durable when it returns. It waits for no head that is locked: that job
        answers `busy`. Raises OutcomeUnknown where the connection broke: the same batch may and should be sent again,
        and what was stored answers `stored`.
        """
        ...

    def append_waiting(self, item: Append) -> Answer:
        """The same for one job, which waits a while for a head that is locked."""
        ...

    def append_locked(self, job_id: str, known: Position, rule: Rule, *, request_id: str | None = None) -> int:
        """Append what `rule` says while the head is locked, for everybody who does not own the job.

        Returns the job's version afterwards. A request id seen before appends nothing and returns the version it
        led to. Raises JobNotFound.
        """
        ...

    def begin(self, timeout_s: float | None = None) -> StoreTransaction:
        """Open a transaction for a handler's statements and the append that ends them.

        Without a timeout the store may have one of its own. Raises StoreUnavailable where it cannot begin now.
        """
        ...

    def claim(self, job_id: str, worker_id: str, known: Position, rule: ClaimRule) -> Claim:
        """Make the worker the job's owner, if it has none or its owner is dead, and append what `rule` says.

        Raises JobNotFound, JobOwned while the owner lives, WorkerDead if `worker_id` itself is no longer alive.
        """
        ...

    def look_for_work(self, query: WorkQuery) -> Work:
        """What a worker could claim now. What it costs does not grow with the jobs that have ended, or that sleep."""
        ...

    def claim_many(self, batch: Sequence[Append], slots: Slots | None = None) -> list[Answer]:
        """Make one worker the owner of jobs nobody owns, each if its log still ends where the worker believes.

        A job for which `slots` names slots takes one of each limit, or answers `limited` and which is used up.

        The items' claims are the new ones, their events begin with JobClaimed. Answers come in the order of the batch:
        `stored`, or why the job is not claimed; it waits for no head that is locked. Raises WorkerDead if the worker
        is no longer alive, OutcomeUnknown as `append` does.
        """
        ...

    def abandon(self, job_id: str, claim: Claim) -> None:
        """Leave a job without an owner, if that claim still holds it: whoever finds it takes it over."""
        ...

    def hint(self) -> None:
        """Say to workers that wait that there may be work; it may get lost, and nobody must rely on it."""
        ...

    def await_hint(self, timeout_s: float) -> bool:
        """Wait in this thread until somebody hints at work, or for so long; whether somebody did."""
        ...

    def head(self, job_id: str) -> Head:
        """The job's row. Raises JobNotFound."""
        ...

    def look_at(self, job_id: str) -> Look:
        """The job's row and its owner's, by one statement. Raises JobNotFound."""
        ...

    def heads(self, query: HeadQuery) -> list[Head]:
        """Rows of the jobs that match, newest first."""
        ...

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs there are, by workflow and status."""
        ...

    def batches(self, batch_id: str | None = None, limit: int = 50) -> list[BatchCount]:
        """How far that batch is, or each of the newest batches."""
        ...

    def find(self, suffix: str, limit: int = 10) -> list[str]:
        """Ids of the jobs whose id ends in `suffix`, newest first."""
        ...

    def job_of_key(self, workflow: str | None, key: str) -> list[str]:
        """Ids of the jobs created with that key, in that workflow or in any."""
        ...

    def read(self, job_id: str, after: int = 0, until: int | None = None) -> Iterator[Event]:
        """Events with versions after `after` up to `until`, checked against the hash chain, in order.

        Without `until` it reads to the head and raises DamagedLog where the log ends before it.
        """
        ...

    def tail(self, head: Head, known: Position) -> list[Event]:
        """Everything behind `known`, up to the head as it was seen, checked as by `read` but by one statement.

        Raises DamagedLog where the log in between is not the one of both.
        """
        ...

    def commit_mark(self) -> str | None:
        """A text that is another one once events were stored, found without a query; None where only a query tells."""
        ...

    def feed(self, after: str | None = None, limit: int = PAGE_ENTRIES) -> FeedPage:
        """What was stored in all jobs since a cursor, or since the beginning; each event once, in about their order.

        A cursor may be kept for ever. Raises FeedMoved where it came from another log: look at all heads once, and go
        on from a `feed_end` taken before that. Raises CursorRefused where it came from no feed at all.
        """
        ...

    def feed_end(self) -> str:
        """The cursor behind everything that is stored by now."""
        ...

    def heads_of(self, job_ids: Sequence[str]) -> list[Head]:
        """Heads of those of the jobs that are there, in any order."""
        ...

    def read_heads(self, heads: Sequence[Head]) -> dict[str, list[Event] | LogError]:
        """The whole logs of several jobs, each up to its head as it was seen, or why one cannot be read.

        For short logs: all of them are in memory at once.
        """
        ...

    def open_job(self, job_id: str, reducer_version: int, until: int | None = None) -> Opened:
        """The latest stored state of that reducer, at most at version `until`, and the events behind it up to there.

        One round trip where they are not many. Raises JobNotFound; the events raise what those of `read` do.
        """
        ...

    def save_state(self, stored: StoredState) -> None:
        """Keep a state; one that is stored already is left as it is, and one of another log is not kept."""
        ...

    def prune(self, job_id: str, at: Position) -> bool:
        """Remove the events and stored states of a job that has ended, nobody owns, and whose log ends there.

        Its head and key stay; `read` raises JobPruned. False where the job is not so; True once more is harmless.
        """
        ...

    def pruned(self, job_id: str) -> Position | None:
        """Where the log of a pruned job ended; None of any other."""
        ...

    @property
    def inspection(self) -> Inspection:
        """The store as an auditor sees it."""
        ...

    @property
    def projected(self) -> Projected:
        """What the store keeps of projections."""
        ...

    @property
    def data_keys(self) -> DataKeys:
        """The keys to its jobs' sealed values, wrapped."""
        ...

    def see_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        """Keep a schedule as a worker has it, and say since when it is known and how far it has fired."""
        ...

    def schedule_fired(self, workflow: str, name: str, at: str) -> None:
        """Remember that it has fired for that time, unless it has for a later one."""
        ...

    def schedules(self) -> list[ScheduleRow]:
        """Every schedule known, by workflow and name."""
        ...

    def register_worker(self, worker: WorkerIdentity, lease_s: float) -> None:
        """Make a worker known as alive, before it claims anything."""
        ...

    def beat(self, worker_id: str, lease_s: float) -> Beat:
        """Say that the worker lives. Raises WorkerDead if it was declared dead meanwhile."""
        ...

    def retire_worker(self, worker_id: str) -> None:
        """The worker ends in order; jobs it still owns may be taken at once."""
        ...

    def owned_counts(self) -> dict[str, int]:
        """By worker, how many jobs it owns; those that own none are left out."""
        ...

    def longest_ready(self, limit: int) -> list[Head]:
        """Jobs nobody owns that are due, of any workflow, those first that have waited longest."""
        ...

    def workers(self) -> list[Worker]:
        """Every worker known, newest first."""
        ...
