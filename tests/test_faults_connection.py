"""The connection is cut, reset, half closed, swallowed or slowed at every message of the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from append_witness import KNOWN_S_MAX, OwnedJob, Witness, WitnessedStore, append_one, owned_jobs, steady_load
from log_builder import LogBuilder
from message_proxy import Action, MessageProxy, Point, Side
from witness_figures import Show

from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import OutcomeUnknown, StoreUnavailable
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.writer import Writer

SILENCE_S_MAX = 0.5
BREAKS: list[Action] = ["cut", "reset", "half-close"]
_COMMIT: dict[Side, str] = {"client": "S", "server": "C"}


@pytest.fixture
def proxy(postgres_dsn: str) -> Iterator[MessageProxy]:
    with MessageProxy(postgres_dsn) as proxy:
        yield proxy


def far_store(proxy: MessageProxy, schema: str, *, portable: bool = False, answer_s_max: float = 30) -> PostgresStore:
    return PostgresStore(proxy.dsn, schema=schema, portable=portable, answer_s_max=answer_s_max)


def points_of_an_append(proxy: MessageProxy, schema: str, job: OwnedJob, *, portable: bool = False) -> list[Point]:
    """Before and after each message of one append on a connection that is there already."""
    with closing(far_store(proxy, schema, portable=portable)) as store, closing(Writer(store)) as writer:
        append_one(writer, job, Witness(), "the connection is made")
        proxy.arm(None)
        append_one(writer, job, Witness(), "its messages are counted")
        seen = list(proxy.seen)
    return [
        Point(side, number, when)
        for side in ("client", "server")
        for number in range(1, 1 + sum(message.side == side for message in seen))
        for when in ("before", "after")
    ]


def strike_an_append(
    proxy: MessageProxy, store: PostgresStore, job: OwnedJob, point: Point, action: Action, witness: Witness
) -> None:
    witnessed: Any = WitnessedStore(store, witness)
    with closing(Writer(witnessed)) as writer:
        append_one(writer, job, witness, "the connection is made")
        proxy.arm(point, action)
        append_one(writer, job, witness, "a", "b")
        assert proxy.struck.wait(KNOWN_S_MAX), f"{point} was not reached"
        append_one(writer, job, witness, "what comes next")


@pytest.mark.parametrize(
    ("action", "portable"),
    [
        *((action, False) for action in BREAKS),
        ("cut", True),
        *(pytest.param(action, True, marks=pytest.mark.heavy) for action in BREAKS[1:]),
    ],
)
def test_an_append_broken_at_any_message_is_stored_once(
    postgres_store: PostgresStore, postgres_schema: str, proxy: MessageProxy, action: Action, portable: bool, show: Show
) -> None:
    """Mutants: an error on send counts as failed and is sent under new ids; an answer cut off counts as stored."""
    witness = Witness()
    first, *_ = owned_jobs(postgres_store, 1)
    points = points_of_an_append(proxy, postgres_schema, first, portable=portable)
    jobs = owned_jobs(postgres_store, len(points))
    for point, job in zip(points, jobs, strict=True):
        with closing(far_store(proxy, postgres_schema, portable=portable)) as store:
            strike_an_append(proxy, store, job, point, action, witness)
    figures = witness.figures(postgres_store, jobs)
    show(f"{action} at {len(points)} points of an append", figures)
    assert (figures.lost, figures.doubled, figures.stored) == (0, 0, 4 * len(points))
    assert figures.unknown == len(points)


def test_an_append_that_is_only_slow_is_not_sent_again(
    postgres_store: PostgresStore, postgres_schema: str, proxy: MessageProxy
) -> None:
    witness = Witness()
    first, *_ = owned_jobs(postgres_store, 1)
    points = [point for point in points_of_an_append(proxy, postgres_schema, first) if point.when == "before"]
    jobs = owned_jobs(postgres_store, len(points))
    for number, (point, job) in enumerate(zip(points, jobs, strict=True)):
        with closing(far_store(proxy, postgres_schema)) as store:
            strike_an_append(proxy, store, job, point, "drip" if number % 2 else "delay", witness)
    figures = witness.figures(postgres_store, jobs)
    assert (figures.lost, figures.doubled, figures.unknown) == (0, 0, 0)


def test_a_peer_that_swallows_everything_is_given_up_and_the_append_stored_once(
    postgres_store: PostgresStore, postgres_schema: str, proxy: MessageProxy, show: Show
) -> None:
    """Mutant: no deadline of the client's own; the peer's kernel answers every keepalive."""
    swallow(postgres_store, postgres_schema, proxy, show, every=6)


@pytest.mark.heavy
def test_a_peer_that_swallows_everything_from_any_message_on_is_given_up(
    postgres_store: PostgresStore, postgres_schema: str, proxy: MessageProxy, show: Show
) -> None:
    swallow(postgres_store, postgres_schema, proxy, show, every=1)


def swallow(near: PostgresStore, schema: str, proxy: MessageProxy, show: Show, every: int) -> None:
    witness = Witness()
    first, *_ = owned_jobs(near, 1)
    points = points_of_an_append(proxy, schema, first)[::every]
    jobs = owned_jobs(near, len(points))
    for point, job in zip(points, jobs, strict=True):
        with closing(far_store(proxy, schema, answer_s_max=SILENCE_S_MAX)) as store:
            strike_an_append(proxy, store, job, point, "black hole", witness)
    figures = witness.figures(near, jobs)
    show(f"black hole at {len(points)} points of an append", figures)
    assert (figures.lost, figures.doubled, figures.stored) == (0, 0, 4 * len(points))


@pytest.mark.parametrize("action", ["cut", "reset"])
def test_a_job_whose_creation_is_broken_at_any_message_is_created_once(
    postgres_store: PostgresStore, postgres_schema: str, proxy: MessageProxy, action: Action
) -> None:
    """BEGIN, the call, COMMIT. Mutant: an error on COMMIT is passed on as a failure that stored nothing."""
    build = LogBuilder(SystemClock())
    with closing(far_store(proxy, postgres_schema)) as store:
        store.create(build.job())
        proxy.arm(None)
        store.create(build.job())
        messages = {side: sum(seen.side == side for seen in proxy.seen) for side in ("client", "server")}
        unknown = 0
        for point in [
            Point(side, number, when)
            for side in ("client", "server")
            for number in range(1, messages[side] + 1)
            for when in ("before", "after")
        ]:
            job = build.job()
            store.now()
            proxy.arm(point, action)
            for _ in range(3):
                try:
                    assert store.create(job) == job.job_id
                except OutcomeUnknown:
                    unknown += 1
                except StoreUnavailable:
                    assert not postgres_store.find(job.job_id), (
                        f"{point}: an error that stored nothing stored something"
                    )
                else:
                    break
            assert len(list(postgres_store.read(job.job_id))) == 1
    assert unknown


@pytest.mark.parametrize("cuts", [24, pytest.param(500, marks=pytest.mark.heavy)])
def test_many_writers_whose_connections_are_cut_around_their_commits_lose_and_double_nothing(
    postgres_store: PostgresStore, postgres_schema: str, proxy: MessageProxy, cuts: int, show: Show
) -> None:
    """The server commits when it reads Sync, and says so with CommandComplete. Mutants: as above."""
    around = [Point(side, 1, when, kind) for side, kind in _COMMIT.items() for when in ("before", "after")]
    witness, jobs = Witness(), owned_jobs(postgres_store, 8)
    stores = [far_store(proxy, postgres_schema) for _ in jobs]
    with ExitStack() as stack:
        for store in stores:
            stack.callback(store.close)
        stack.enter_context(steady_load(stores, jobs, witness))
        for number in range(cuts):
            witness.await_acknowledged(len(jobs))
            proxy.arm(around[number % len(around)], BREAKS[number % len(BREAKS)])
            assert proxy.struck.wait(KNOWN_S_MAX)
        witness.await_acknowledged(len(jobs))
    figures = witness.figures(postgres_store, jobs)
    show(f"{cuts} connections of 8 writers broken around COMMIT", figures)
    assert (figures.lost, figures.doubled) == (0, 0)
    assert cuts // 2 <= figures.unknown <= cuts
