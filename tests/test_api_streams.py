"""Streams: every event once and in order whatever breaks off, one reader of the feed for all, slow clients let go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api_world import World, streaming

from steplog.api.changes import Batch, Changes, Listener
from steplog.api.messages import PAGE_BYTES
from steplog.api.problems import Problem
from steplog.engine import operators
from steplog.eventstore.feed import FeedEntry, FeedPage
from steplog.testing.memory import MemoryStore


@pytest.fixture
def world() -> World:
    return World()


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def within_time() -> Any:
        return await asyncio.wait_for(scenario(), 120)

    return asyncio.run(within_time())


def stream_of(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}/events/stream"


def test_a_jobs_stream_is_its_history_and_goes_on(world: World) -> None:
    job_id = world.job()
    known = list(world.store.read(job_id))

    async def scenario() -> None:
        async with streaming(world.app, f"{stream_of(job_id)}?after=0") as stream:
            for event in known:
                message = await stream.next()
                assert (message["id"], message["event"]) == (str(event.version), event.type)
                assert json.loads(message["data"])["hash"] == event.hash
            await asyncio.to_thread(operators.cancel, world.store, job_id, by="anna")
            assert [(await stream.next())["event"] for _ in range(2)] == ["JobCancelRequested", "JobCancelled"]

    run(scenario)


def test_a_stream_that_broke_off_goes_on_behind_the_last_event_seen(world: World) -> None:
    job_id = world.job()
    last = world.store.head(job_id).version

    async def scenario() -> None:
        async with streaming(world.app, stream_of(job_id), {"Last-Event-ID": str(last - 2)}) as stream:
            assert [(await stream.next())["id"] for _ in range(2)] == [str(last - 1), str(last)]

    run(scenario)


def test_a_stream_without_a_place_begins_now(world: World) -> None:
    job_id = world.job()

    async def scenario() -> None:
        async with streaming(world.app, stream_of(job_id)) as stream:
            await stream.begun.wait()
            await asyncio.to_thread(operators.cancel, world.store, job_id, by="anna")
            assert (await stream.next())["event"] == "JobCancelRequested"

    run(scenario)


def test_the_stream_of_all_jobs_goes_on_from_its_cursor(world: World) -> None:
    async def scenario() -> None:
        begun = world.store.feed_end()
        made = {await asyncio.to_thread(world.job) for _ in range(2)}
        entries = sum(world.store.head(job_id).version for job_id in made)
        seen: list[tuple[str, int]] = []
        cursor = begun
        while len(set(seen)) < entries:  # each time it breaks off after a cursor, and comes again
            async with streaming(world.app, "/api/v1/events/stream", {"Last-Event-ID": cursor}) as stream:
                message = {"id": ""}
                while not message.get("id"):
                    message = await stream.next()
                    told = json.loads(message["data"])
                    seen.append((told["job_id"], told["version"]))
                cursor = message["id"]
        assert {job_id for job_id, _ in seen} == made

    run(scenario)


@pytest.mark.parametrize("last", ["nonsense", "-1", "1" * 30])
def test_a_place_that_is_none_is_a_problem(world: World, last: str) -> None:
    answer = world.client.get(stream_of(world.job()), headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:steplog:problem:invalid-request")


def test_too_many_listeners_are_told_to_come_later() -> None:
    world = World(clients_max=1)
    job_id = world.job()

    async def scenario() -> None:
        async with streaming(world.app, f"{stream_of(job_id)}?after=0") as first:
            await first.next()
            async with streaming(world.app, stream_of(job_id)) as second:
                await second.begun.wait()
                assert second.status == 429

    run(scenario)


def test_large_events_are_read_a_few_at_a_time_and_all_of_them_come() -> None:
    world = World(keep_alive_s=13.0)  # an app of its own
    job_id = world.job()
    for number in range(5):
        operators.signal(world.store, job_id, f"s{number}", "x" * 400_000, by="anna")
    last = world.store.head(job_id).version

    async def scenario() -> None:
        versions: list[int] = []
        while not versions or versions[-1] < last:
            after = versions[-1] if versions else 0
            page = await world.app.state.service.messages.behind(job_id, after, last)
            assert sum(len(message.text) for message in page[:-1]) < PAGE_BYTES
            versions += [message.version for message in page]
        assert versions == list(range(1, last + 1))

    run(scenario)


# --- the one reader --------------------------------------------------------------------------------------------------


class Feed(MemoryStore):
    """A store that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.looked_at = 0

    def commit_mark(self) -> str:
        self.looked_at += 1
        return super().commit_mark()

    def feed(self, after: str | None = None, limit: int = 500) -> FeedPage:
        self.asked += 1
        return super().feed(after, limit)


def test_two_hundred_listeners_ask_the_store_what_one_does() -> None:
    async def scenario(listeners: int) -> int:
        world = World(store := Feed())
        job_id = await asyncio.to_thread(world.job)
        changes = Changes(store, listeners_max=2000, batches_max=8)
        contexts = [changes.listening(job_id) for _ in range(listeners)]
        listening = [await context.__aenter__() for context in contexts]
        await asyncio.to_thread(operators.cancel, store, job_id, by="anna")
        heard: list[int] = []
        for listener in listening:
            newest = 0
            while newest < store.head(job_id).version:
                batch = await listener.next(60)
                assert batch is not None
                newest = batch.entries[-1].version
            heard.append(newest)
        for context in contexts:
            await context.__aexit__(None, None, None)
        assert heard == [store.head(job_id).version] * listeners
        return store.asked

    one, many = run(lambda: scenario(1)), run(lambda: scenario(200))
    assert many <= one + 10  # as events come, not as listeners do, and not as time passes


def test_nobody_listens_and_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steplog.api.changes.LOOK_S", 0.0)

    async def scenario() -> None:
        store = Feed()
        changes = Changes(store, listeners_max=10, batches_max=8)
        async with changes.listening():
            pass
        looked_at = store.looked_at
        for _ in range(50):  # in which a reader that went on would look again and again
            await asyncio.to_thread(int)
        assert changes.listeners == 0
        assert store.looked_at <= looked_at + 1, "more than the one look that was under way"

    run(scenario)


def batch(version: int) -> Batch:
    return Batch([FeedEntry("job", version, "SubStepStarted", "")], str(version))


def test_who_falls_behind_is_let_go_with_what_it_had() -> None:
    async def scenario() -> None:
        listener = Listener("job", 3)
        for version in range(1, 10):
            listener.offer(batch(version))
        assert listener.is_dropped
        assert [(await listener.next(1) or batch(0)).cursor for _ in range(3)] == ["1", "2", "3"]
        assert await listener.next(60) is None  # at once: nothing more will come

    run(scenario)


def test_a_stalled_client_costs_the_others_nothing(world: World) -> None:
    job_id = world.job()

    async def scenario() -> None:
        async with (
            streaming(world.app, f"{stream_of(job_id)}?after=0") as stalled,
            streaming(world.app, f"{stream_of(job_id)}?after=0") as live,
        ):
            stalled.stalled.clear()
            last = world.store.head(job_id).version
            while (await live.next())["id"] != str(last):
                pass
            for number in range(4):
                await asyncio.to_thread(operators.signal, world.store, job_id, f"s{number}", by="anna")
                assert (await live.next())["event"] == "SignalReceived"
            stalled.stalled.set()

    run(scenario)


def test_a_store_that_is_away_is_a_problem_and_no_hanging_stream() -> None:
    class Away(MemoryStore):
        def feed_end(self) -> str:
            from steplog.eventstore.errors import StoreUnavailable

            raise StoreUnavailable("gone")

    async def scenario() -> None:
        changes = Changes(Away(), listeners_max=10, batches_max=8)
        with pytest.raises(Exception, match="gone"):
            async with changes.listening():
                pass
        assert changes.listeners == 0

    run(scenario)


def test_the_problem_of_too_many_says_when_to_come_again() -> None:
    async def scenario() -> None:
        changes = Changes(MemoryStore(), listeners_max=0, batches_max=8)
        with pytest.raises(Problem) as refused:
            async with changes.listening():
                pass
        assert refused.value.headers["Retry-After"]

    run(scenario)
