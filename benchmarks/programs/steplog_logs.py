"""steplog's log without an engine that runs handlers: appends alone, folding, opening, memory of jobs in flight."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from program import Measured, Stopwatch, Work, leave_alone, main
from steplog_jobs import chain
from steplog_stores import durability_of, opened

from steplog import Worker, Workflow
from steplog.engine.history import load
from steplog.engine.jobs import prepare
from steplog.eventstore import postgres_tables
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.events import EventData, SubStepCompleted, SubStepProgressed, SubStepStarted
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import Append, Claim, Code, HeadColumns, Store
from steplog.projections.evolve import fold

BATCH = 64
LOG_STEPS = 2_000
OPENINGS = 20
_IDEMPOTENCY_KEY = "0" * 32


def measure(work: Work) -> Measured:
    with opened(work.store) as store:
        return MEASURES[work.what](store, work)


# --- append ----------------------------------------------------------------------------------------------------------


@dataclass
class OpenJob:
    """A job that a worker owns, and where its log ends."""

    job_id: str
    claim: Claim
    columns: HeadColumns
    position: Position

    def next(self, data: list[EventData]) -> Append:
        events = seal(self.job_id, self.position, data, SystemClock().now(), SystemClock())
        item = Append(self.job_id, self.position, self.claim, events, self.columns)
        self.position = end_of(events, self.position)
        return item


def created(store: Store, worker: Worker, workflow: Workflow[Any, Any]) -> OpenJob:
    owned, new_job = prepare(worker, workflow, {}, None)
    store.create(new_job)
    return OpenJob(new_job.job_id, owned.claim, new_job.columns, owned.loaded.position)


def appends(store: Store, work: Work) -> Measured:
    """The store's append alone: batches of many jobs with two events each."""
    watch = Stopwatch()
    with Worker(store) as worker:
        jobs = [created(store, worker, chain(1)) for _ in range(BATCH)]
        batches = work.events // (2 * BATCH)
        for _ in range(batches):
            batch = [job.next(step_events("s0", 2)) for job in jobs]
            with watch.running():
                answers = store.append(batch)
            if any(answer.code is not Code.STORED for answer in answers):
                raise RuntimeError(f"not stored: {answers}")
    return Measured(batches * BATCH * 2, watch.seconds, durability_of(store))


def step_events(name: str, count: int) -> list[EventData]:
    """A step's events: that it started, how far it came, that it completed."""
    of: dict[str, Any] = {"phase": "main", "sub_step": name, "generation": 1, "attempt": 1}
    between = [SubStepProgressed(**of, done=done, total=count, note="so far") for done in range(count - 2)]
    started = SubStepStarted(**of, idempotency_key=_IDEMPOTENCY_KEY, needs=[], when=None)
    return [started, *between, SubStepCompleted(**of, result={"rows": count, "file": "menu.csv"}, seconds=0.25)]


# --- read ------------------------------------------------------------------------------------------------------------


def replay(store: Store, work: Work) -> Measured:
    """Read and fold one job's whole log from its first event."""
    job_id, watch = long_job(store, work.events), Stopwatch()
    leave_alone()
    before = peak_mb()
    with watch.running():
        state = fold(store.read(job_id))
    if state["done"] != LOG_STEPS:
        raise RuntimeError(f"{state['done']} steps are done (expected {LOG_STEPS})")
    notes = reading_notes(watch, state["version"], before)
    return Measured(state["version"], watch.seconds, durability_of(store), notes)


def fetch_and_parse(store: Store, work: Work) -> Measured:
    """The limit of a replay: the same rows through the same driver, their JSON parsed, nothing else."""
    job_id, watch = long_job(store, work.events), Stopwatch()
    leave_alone()
    parsed, before = 0, peak_mb()
    with watch.running():
        for row in stored_rows(store, job_id):
            orjson.loads(row[5])
            parsed += 1
    return Measured(parsed, watch.seconds, durability_of(store), reading_notes(watch, parsed, before))


def stored_rows(store: Any, job_id: str) -> Iterator[Sequence[Any]]:
    """The columns that a replay needs, as the store's own statement asks for them, in one result."""
    if isinstance(store, PostgresStore):
        yield from postgres_tables.rows_after(store._connections.rows, job_id, 0)
        return
    with store._connections.reading() as connection:
        query = (
            "select version, event_id, type, schema_version, recorded_at, data, hash"
            " from events where job_id = ? order by version"
        )
        yield from connection.execute(query, (job_id,))


def reading_notes(watch: Stopwatch, events: int, peak_before: float) -> dict[str, float]:
    """What else a reader is asked: its own process's CPU, and how far its memory grew."""
    return {"CPU µs/event": watch.cpu_seconds / events * 1e6, "peak grew by MB": peak_mb() - peak_before}


def long_job(store: Store, events: int) -> str:
    """A job of that many events, not measured."""
    with Worker(store) as worker:
        job = created(store, worker, chain(LOG_STEPS))
        for number in range(LOG_STEPS):
            store.append([job.next(step_events(f"s{number}", max(2, events // LOG_STEPS)))])
    return job.job_id


def opening(store: Store, work: Work) -> Measured:
    """Open a job that an engine has run, as a worker or the CLI does: its state and what came after that was stored."""
    job, watch = chain(work.steps).run(store=store), Stopwatch()
    with watch.running():
        versions = [load(store, job.job_id).position.version for _ in range(OPENINGS)]
    if set(versions) != {job.version}:
        raise RuntimeError(f"opened at versions {versions} (expected {job.version})")
    return Measured(OPENINGS, watch.seconds, durability_of(store), {"events": job.version})


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(store: Store, work: Work) -> Measured:
    """How many jobs in flight a megabyte holds, each waiting inside a handler."""
    before = peak_mb()
    asyncio.run(all_in_flight(store, work.jobs))
    return Measured(work.jobs, peak_mb() - before, durability_of(store))


async def all_in_flight(store: Store, jobs: int) -> None:
    workflow: Workflow[Any, Any] = Workflow("in flight")
    everybody, left = asyncio.Event(), jobs

    @workflow.sub_step
    async def wait() -> None:
        nonlocal left
        left -= 1
        if not left:
            everybody.set()
        await everybody.wait()

    await asyncio.gather(*(workflow.arun(store=store) for _ in range(jobs)))


def peak_mb() -> float:
    """The most that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


MEASURES = {
    "appends": appends,
    "replay": replay,
    "fetch and parse": fetch_and_parse,
    "opening": opening,
    "memory": memory,
}

if __name__ == "__main__":
    main(measure)
