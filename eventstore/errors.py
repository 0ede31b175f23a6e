"""Everything the log can refuse or fail at, as types. The class docstring is the default message."""

from __future__ import annotations

from typing import ClassVar


class SteplogError(Exception):
    """Something went wrong in steplog."""

    next_step: ClassVar[str | None] = None
    """What a person can do about it, as one sentence or command."""

    def __init__(self, message: str | None = None, /) -> None:
        super().__init__(message if message is not None else (type(self).__doc__ or "").strip().rstrip("."))


class StoreError(SteplogError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be reached."""


class OutcomeUnknown(StoreUnavailable):
    """The connection broke while a write was under way: it may or may not be stored; send the same again."""


class StoreDamaged(StoreUnavailable):
    """The store's files are damaged."""


class StatementFailed(StoreError):
    """The database refused a statement of the handler's transaction, so nothing of it can be committed."""

    next_step: ClassVar[str | None] = "let the error out of the handler, or set a savepoint before what may fail"

    def __init__(self, message: str | None = None, /, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The SQLSTATE, or SQLite's name of the error."""


class TransactionEnded(StoreError):
    """The handler ended its transaction itself: what it did may be committed without its completion."""

    next_step: ClassVar[str | None] = "leave commit and rollback to steplog: return to commit, raise to roll back"


class TransactionClosed(StoreError):
    """The transaction is over, for its attempt has ended, timed out or lost its worker: this was not done."""


class StoreNotMigrated(StoreError):
    """The store's schema is missing or older than this steplog."""

    next_step: ClassVar[str | None] = "run `steplog db migrate`"


class StoreMissing(StoreNotMigrated):
    """There is no such file."""

    next_step = "run a workflow first, go to the folder it ran in, or name the store with --db"


class StoreNewer(StoreError):
    """The store was migrated by a newer steplog: upgrade this one."""


class PayloadRefused(SteplogError, ValueError):
    """A value cannot be kept exactly in the log."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class JobNotFound(StoreError):
    """There is no such job."""

    def __init__(self, job: str) -> None:
        super().__init__(f"no job {job}")
        self.job = job


class AmbiguousJob(StoreError):
    """More than one job answers to that name."""

    def __init__(self, job: str, candidates: list[str]) -> None:
        super().__init__(f"{job} is ambiguous: {', '.join(candidates)}")
        self.job = job
        self.candidates = candidates


class KeyConflict(StoreError):
    """The key is taken by a job with another input."""

    def __init__(self, workflow: str, key: str, job_id: str) -> None:
        super().__init__(f"key {key!r} of workflow {workflow} belongs to job {job_id}, which has another input")
        self.workflow = workflow
        self.key = key
        self.job_id = job_id


class JobOwned(StoreError):
    """The job's owner lives."""

    def __init__(self, job_id: str, worker_id: str, until: str | None, where: str | None = None) -> None:
        lease = f", lease until {until}" if until else ""
        super().__init__(f"job {job_id} is run by worker {worker_id}{f' ({where})' if where else ''}{lease}")
        self.job_id = job_id
        self.worker_id = worker_id
        self.until = until
        self.where = where


class WorkerDead(StoreError):
    """This worker was declared dead: its jobs may run elsewhere, so it must stop."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"worker {worker_id} was declared dead; it must stop")
        self.worker_id = worker_id


class WrongState(StoreError):
    """The job's state does not allow that."""

    def __init__(self, job_id: str, status: str, wanted: str, allowed: list[str]) -> None:
        options = f"; allowed now: {', '.join(allowed)}" if allowed else ""
        super().__init__(f"job {job_id} is {status}: cannot {wanted}{options}")
        self.job_id = job_id
        self.status = status
        self.wanted = wanted
        self.allowed = allowed


class CursorRefused(StoreError):
    """That is no cursor of this feed."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"no cursor of this feed: {cursor[:80]!a}")
        self.cursor = cursor


class FeedMoved(StoreError):
    """The log is not the one that the cursor came from: it was restored, or another server took over."""

    next_step: ClassVar[str | None] = "look at all jobs once, then go on from the feed's end"


class LogError(StoreError):
    """A job's log cannot be trusted or understood; nothing was appended to it."""

    def __init__(self, job_id: str, version: int, why: str) -> None:
        super().__init__(f"job {job_id}, version {version}: {why}")
        self.job_id = job_id
        self.version = version
        self.why = why


class DamagedLog(LogError):
    """A row of the log is missing, malformed, moved or altered."""


class JobPruned(LogError):
    """The job ended long ago and its events were removed: they are in the export that was made before."""

    def __init__(self, job_id: str, version: int) -> None:
        super().__init__(job_id, version, "its events were pruned; they are in the export that was made before")


class UnknownEvent(LogError):
    """A row of the log is of a type or schema version this steplog does not know."""
