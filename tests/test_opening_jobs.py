"""Opening a job on PostgreSQL takes one round trip: its head, the state it goes on from, and what came behind that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest
from logged_jobs import LoggedJob
from message_proxy import Message, MessageProxy
from verified_logs import facts

from steplog.eventstore.events import EventData, SubStepProgressed
from steplog.eventstore.postgres import PAGE_ROWS, PostgresStore
from steplog.eventstore.store import StoredState
from steplog.projections.evolve import fold
from steplog.projections.loading import load
from steplog.projections.state import REDUCER_VERSION

ROUND_TRIP = Message("client", "S")
"""A client that waits for the server ends what it sends with Sync."""


@pytest.fixture
def proxy(postgres_dsn: str) -> Iterator[MessageProxy]:
    with MessageProxy(postgres_dsn) as proxy:
        yield proxy


def long_facts() -> Iterator[EventData]:
    """A job whose first sub-step goes on and on."""
    yield from islice(facts(), 4)
    while True:
        yield SubStepProgressed(phase="main", sub_step="step00", attempt=1, done=1)


def written(store: PostgresStore, events: int) -> LoggedJob:
    job = LoggedJob(store)
    job.add(list(islice(long_facts(), events)))
    return job


def keep_state(job: LoggedJob, version: int) -> None:
    state = fold(job.store.read(job.job_id, 0, version))
    (last,) = job.store.read(job.job_id, version - 1, version)
    at = job.position._replace(version=version, hash=last.hash, recorded_at=last.recorded_at)
    job.store.save_state(StoredState(job.job_id, at, REDUCER_VERSION, dict(state)))


@pytest.mark.parametrize(
    ("events", "kept_at", "round_trips"),
    [
        pytest.param(900, None, 1, id="no state, one page of events"),
        pytest.param(2_000, 1_600, 1, id="a state and a tail"),
        pytest.param(2_000, 2_000, 1, id="a state and nothing behind it"),
        pytest.param(2 * PAGE_ROWS + 1, None, 3, id="no state, three pages of events"),
    ],
)
def test_opening_a_job_takes_one_round_trip_unless_its_tail_is_long(
    postgres_store: PostgresStore,
    postgres_schema: str,
    proxy: MessageProxy,
    events: int,
    kept_at: int | None,
    round_trips: int,
) -> None:
    job = written(postgres_store, events)
    if kept_at:
        keep_state(job, kept_at)
    with closing(PostgresStore(proxy.dsn, schema=postgres_schema)) as far:
        far.now()
        proxy.arm(None)
        loaded = load(far, job.job_id)
        assert proxy.seen.count(ROUND_TRIP) == round_trips
    assert (loaded.position, loaded.stored_at) == (job.position, kept_at or 0)
    assert loaded.state == fold(postgres_store.read(job.job_id))
