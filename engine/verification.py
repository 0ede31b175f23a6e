"""Reading a store against itself: each job's log, head, states, key and what projections keep of it; and putting heads
right that are not.

Memory is bounded: rows and states come one after the other, jobs and keys page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from steplog.engine.values import input_hash
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import JobNotFound, LogError, StoreDamaged
from steplog.eventstore.events import Event, JobCreated, SecretsErased
from steplog.eventstore.inspection import Key, all_job_ids, all_keys
from steplog.eventstore.store import Head, Proposal, Store
from steplog.projections.evolve import fold
from steplog.projections.head import head_of
from steplog.projections.kept_documents import KeptDocuments
from steplog.projections.verification import Finding, examine


@dataclass
class Tally:
    """How far a verification has come."""

    jobs: int = 0
    events: int = 0


def verify_job(
    store: Store, job_id: str, tally: Tally | None = None, kept: Sequence[KeptDocuments] = ()
) -> Iterator[Finding]:
    """What is wrong with a job, and with what those projections keep of it. Appends may go on meanwhile.

    Raises JobNotFound where nothing is stored of it.
    """
    tally = tally or Tally()
    tally.jobs += 1
    try:
        head = store.head(job_id)
        if pruned := store.pruned(job_id):
            yield from _differences_of_pruned(head, pruned)
            return
        yield from examine(head, store.inspection.rows(job_id, 0, head.version), store.inspection.states(job_id))
        tally.events += head.version
        yield from _rows_behind(store, head)
        yield from _wrong_key(store, head)
        yield from _wrong_data_key(store, job_id)
        for documents in kept:
            yield from documents.wrong_of(job_id)
    except JobNotFound:
        first = next(store.inspection.rows(job_id), None)
        if first is None:
            raise
        yield Finding(job_id, first.version, "events without a head: the job's row is gone")
    except LogError as error:
        yield Finding(job_id, error.version, error.why)
    except StoreDamaged as error:
        yield Finding(job_id, 0, str(error))


def verify_all(
    store: Store,
    tally: Tally | None = None,
    told: Callable[[], None] = lambda: None,
    kept: Sequence[KeptDocuments] = (),
) -> Iterator[Finding]:
    """What is wrong with the whole store, and with what those projections keep; `told` is called after each job."""
    jobs, totals = _wrong_jobs(store, tally or Tally(), told, kept), (each.wrong_totals() for each in kept)
    for part in (_wrong_files(store), jobs, _wrong_keys(store), *totals):
        try:
            yield from part
        except StoreDamaged as error:
            yield Finding(None, 0, str(error))


def repair(store: Store, job_id: str) -> None:
    """Give the head the columns that its log folds to; the log stays as it is. Raises JobNotFound, LogError."""
    log = store.read(job_id)
    state = fold(log)
    known = Position(state["version"], _hash_at(store, job_id, state["version"]), state["recorded_at"])

    def rule(head: Head, tail: Sequence[Event]) -> Proposal:
        return Proposal([], head_of(fold(tail, state)))

    store.append_locked(job_id, known, rule)


def _hash_at(store: Store, job_id: str, version: int) -> str:
    return next(row.hash for row in store.inspection.rows(job_id, version - 1, version))


def _rows_behind(store: Store, head: Head) -> Iterator[Finding]:
    """An append moves the head with its events, so one that came meanwhile is no finding."""
    behind = next(store.inspection.rows(head.job_id, head.version), None)
    if behind and behind.version > store.head(head.job_id).version:
        yield Finding(head.job_id, behind.version, f"behind the head, which is at version {head.version}")


def _differences_of_pruned(head: Head, pruned: Position) -> Iterator[Finding]:
    if (head.version, head.hash) != (pruned.version, pruned.hash):
        yield Finding(head.job_id, pruned.version, f"the job was pruned there, its head is at version {head.version}")


def _wrong_key(store: Store, head: Head) -> Iterator[Finding]:
    name = head.columns.key
    if name is None:
        return
    key = store.inspection.key(head.columns.workflow, name)
    if key is None or key.job_id != head.job_id:
        holder = f"belongs to job {key.job_id}" if key else "is not taken"
        yield Finding(head.job_id, 0, f"the job's key {name!r} {holder} in the table of keys")
        return
    first = next(store.read(head.job_id, 0, 1))
    if first.type == JobCreated.type() and key.input_hash != input_hash(first.data.get("input")):
        yield Finding(head.job_id, 1, f"the job's key {name!r} is kept for another input than the job's")


def _wrong_data_key(store: Store, job_id: str) -> Iterator[Finding]:
    """An erasure that did not last, as after a restore, or that nobody has said why."""
    key = store.data_keys.find(job_id)
    if key is None:
        return
    said = next((event.version for event in store.read(job_id) if event.type == SecretsErased.type()), None)
    if said is not None and key.wrapped is not None:
        yield Finding(job_id, said, "its secrets were erased there, and the key to them is in the store again")
    if said is None and key.wrapped is None:
        yield Finding(job_id, 0, "the key to its secrets was destroyed, and no event says by whom and why")


def _wrong_files(store: Store) -> Iterator[Finding]:
    for text in store.inspection.damage():
        yield Finding(None, 0, f"the database says of itself: {text}")


def _wrong_jobs(
    store: Store, tally: Tally, told: Callable[[], None], kept: Sequence[KeptDocuments]
) -> Iterator[Finding]:
    for job_id in all_job_ids(store.inspection):
        try:
            yield from verify_job(store, job_id, tally, kept)
        except JobNotFound:
            yield Finding(job_id, 0, "there are states or an index of this job, and neither head nor events")
        told()


def _wrong_keys(store: Store) -> Iterator[Finding]:
    for key in all_keys(store.inspection):
        why = _why_wrong(store, key)
        if why:
            yield Finding(key.job_id, 0, f"key {key.key!r} of workflow {key.workflow} is said to be the job's: {why}")


def _why_wrong(store: Store, key: Key) -> str | None:
    try:
        columns = store.head(key.job_id).columns
    except JobNotFound:
        return "there is no such job"
    except LogError:
        return None  # said already, of that job
    if (columns.workflow, columns.key) != (key.workflow, key.key):
        return f"it has key {columns.key!r} of workflow {columns.workflow}"
    return None
