"""Facts wait in the inbox until they are recorded, and whoever waits for that is told either way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from steplog import AttemptOver
from steplog.engine.facts import AttemptId, CheckpointReached, Fact
from steplog.engine.inbox import Inbox

FACT = CheckpointReached(AttemptId("p", "s", 1, 1), 1, {})


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that does not run: nothing may depend on it to be told."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def posted(inbox: Inbox, fact: Fact = FACT) -> Future[None]:
    durable: Future[None] = Future()
    inbox.post(fact, durable)
    return durable


def test_facts_stay_in_order_until_they_are_acknowledged(loop: asyncio.AbstractEventLoop) -> None:
    inbox = Inbox(loop)
    facts = [CheckpointReached(FACT.of, number, {}) for number in range(3)]
    waiting = [posted(inbox, fact) for fact in facts]

    inbox.acknowledge(inbox.entries()[:2])

    assert [each.done() for each in waiting] == [True, True, False]
    assert [entry.fact for entry in inbox.entries()] == facts[2:]


def test_who_waits_for_a_fact_that_is_not_recorded_is_told_so(loop: asyncio.AbstractEventLoop) -> None:
    inbox = Inbox(loop)
    recorded, unrecorded = (CheckpointReached(FACT.of, 1, {}) for _ in range(2))
    waiting = [posted(inbox, recorded), posted(inbox, unrecorded)]

    inbox.acknowledge(inbox.entries(), [unrecorded])

    assert waiting[0].exception(0) is None
    assert isinstance(waiting[1].exception(0), AttemptOver)


@pytest.mark.parametrize("closed_first", [True, False])
def test_nobody_waits_for_a_run_that_is_over(loop: asyncio.AbstractEventLoop, closed_first: bool) -> None:
    inbox = Inbox(loop)
    if closed_first:
        inbox.close()
    durable = posted(inbox)
    inbox.close()

    assert isinstance(durable.exception(0), AttemptOver)


def test_a_fact_after_the_end_of_the_loop_is_refused(loop: asyncio.AbstractEventLoop) -> None:
    inbox = Inbox(loop)
    inbox.close()
    loop.close()

    assert isinstance(posted(inbox).exception(0), AttemptOver)
