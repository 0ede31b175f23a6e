"""The group-commit writer, on a store that does what a test tells it: batches, the bound, outages, and its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest
from log_builder import LogBuilder

from steplog.eventstore import writer as writer_module
from steplog.eventstore.chain import Position
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import OutcomeUnknown, StoreDamaged, StoreError, StoreUnavailable
from steplog.eventstore.outage import SAID_EVERY_S, Outage
from steplog.eventstore.store import Answer, Append, Claim, Code
from steplog.eventstore.writer import Item, Outcome, Writer

KNOWN_S_MAX = 20

BUILD = LogBuilder(SystemClock())


def an_append(job_id: str | None = None, value: object = "value") -> Append:
    return BUILD.append(job_id or BUILD.clock.new_id(), Position(), Claim("worker", 1, "claim"), value)


def stored(item: Append) -> Answer:
    return Answer(item.job_id, Code.STORED, item.expected.version + len(item.events))


class Deliveries:
    """A mailbox that notes how many outcomes came together."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def deliver(self, outcomes: Sequence[tuple[Item, Outcome]]) -> None:
        self.sizes.append(len(outcomes))


class Scripted:
    """A store that keeps what it was sent, and waits or raises where it was told to."""

    def __init__(self) -> None:
        self.batches: list[list[Append]] = []
        self.alone: list[Append] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.answer: Callable[[Append], Answer] = stored
        self.answer_alone: Callable[[Append], Answer] = stored

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        self.batches.append(list(batch))
        self.entered.release()
        assert self.open.wait(KNOWN_S_MAX)
        return [self.answer(item) for item in batch]

    def append_waiting(self, item: Append) -> Answer:
        self.alone.append(item)
        return self.answer_alone(item)

    def hold(self) -> None:
        """From now on a batch waits inside the store until `open` is set."""
        self.open.clear()

    def await_batch(self) -> None:
        """Returns once a batch more is inside the store."""
        assert self.entered.acquire(timeout=KNOWN_S_MAX)


@pytest.fixture
def store() -> Any:
    return Scripted()


@pytest.fixture
def writer(store: Any) -> Iterator[Writer]:
    with closing(Writer(store)) as writer:
        yield writer
        store.open.set()


def known(promises: Sequence[Future[Answer]]) -> list[Code]:
    return [promised.result(KNOWN_S_MAX).code for promised in promises]


# --- batches ---------------------------------------------------------------------------------------------------------


def test_what_arrives_during_a_commit_goes_into_the_next_one(store: Any, writer: Writer) -> None:
    store.hold()
    first = writer.append(an_append())
    store.await_batch()
    others = [writer.append(an_append()) for _ in range(5)]
    assert not first.done()
    store.open.set()
    assert known([first, *others]) == [Code.STORED] * 6
    assert [len(batch) for batch in store.batches] == [1, 5]


def test_two_appends_of_one_job_are_never_in_one_batch(store: Any, writer: Writer) -> None:
    store.hold()
    first = writer.append(an_append())
    store.await_batch()
    job_id = BUILD.clock.new_id()
    items = [an_append(job_id, 1), an_append(), an_append(job_id, 2), an_append(), an_append(job_id, 3)]
    promises = [writer.append(item) for item in items]
    store.open.set()
    known([first, *promises])
    assert store.batches[1:] == [[items[0], items[1], items[3]], [items[2]], [items[4]]]


def test_a_batch_is_bounded_in_bytes(store: Any, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BATCH_BYTES_MAX", 3_000)
    store.hold()
    first = writer.append(an_append())
    store.await_batch()
    promises = [writer.append(an_append(value="x" * 1_000)) for _ in range(9)]
    store.open.set()
    known([first, *promises])
    assert [len(batch) for batch in store.batches] == [1, 3, 3, 3]


def test_a_member_the_store_refuses_is_set_apart_and_the_others_are_stored(store: Any, writer: Writer) -> None:
    poisoned = an_append()

    def refuse(batch: Sequence[Append]) -> list[Answer]:
        if poisoned in batch:
            raise StoreError("no")
        return [stored(item) for item in batch]

    store.hold()
    first = writer.append(an_append())
    store.await_batch()
    store.append = refuse
    items = [an_append(), an_append(), poisoned, an_append(), an_append()]
    promises = [writer.append(item) for item in items]
    store.open.set()
    assert known([first, *promises[:2], *promises[3:]]) == [Code.STORED] * 5
    with pytest.raises(StoreError, match="no"):
        promises[2].result(KNOWN_S_MAX)


def test_damage_is_told_and_not_waited_out(store: Any, writer: Writer) -> None:
    def damaged(item: Append) -> Answer:
        raise StoreDamaged

    store.answer = damaged
    with pytest.raises(StoreDamaged):
        writer.append(an_append()).result(KNOWN_S_MAX)


def test_a_batch_is_delivered_to_its_mailbox_at_once(store: Any) -> None:
    store.hold()
    mailbox = Deliveries()
    with closing(Writer(store)) as writer:
        writer.put(an_append(), mailbox)
        assert store.entered.acquire(timeout=KNOWN_S_MAX)
        for _ in range(5):
            writer.put(an_append(), mailbox)
        store.open.set()
    assert mailbox.sizes == [1, 5]


# --- the bound -------------------------------------------------------------------------------------------------------


def test_a_full_writer_takes_no_offer_and_drops_nothing(store: Any) -> None:
    store.hold()
    with closing(Writer(store, waiting_max=3)) as writer:
        taken = [writer.append(an_append()) for _ in range(3)]
        assert not writer.offer(an_append(), Deliveries())
        late: list[Future[Answer]] = []
        caller = threading.Thread(target=lambda: late.append(writer.append(an_append())))
        caller.start()
        store.open.set()
        caller.join(KNOWN_S_MAX)
        assert known(taken) == [Code.STORED] * 3
        assert known(late) == [Code.STORED]
    assert sum(map(len, store.batches)) == 4


def test_the_bound_is_in_bytes_too_but_one_append_always_has_room(store: Any) -> None:
    store.hold()
    with closing(Writer(store, waiting_bytes_max=1_000)) as writer:
        first = writer.append(an_append(value="x" * 2_000))
        assert not writer.offer(an_append(), Deliveries())
        store.open.set()
        assert known([first]) == [Code.STORED]


def test_a_caller_that_waits_for_room_is_told_when_the_writer_closes(store: Any) -> None:
    store.hold()
    writer = Writer(store, waiting_max=1)
    first = writer.append(an_append())
    told: list[BaseException] = []

    def wait_for_room() -> None:
        try:
            writer.append(an_append())
        except StoreUnavailable as error:
            told.append(error)

    caller = threading.Thread(target=wait_for_room)
    caller.start()
    while not writer._callers_waiting:
        assert caller.is_alive()
    closer = threading.Thread(target=writer.close)
    closer.start()
    caller.join(KNOWN_S_MAX)
    assert [str(error) for error in told] == ["the writer is closed"]
    store.open.set()
    closer.join(KNOWN_S_MAX)
    assert known([first]) == [Code.STORED]


# --- locked heads ----------------------------------------------------------------------------------------------------


def test_a_locked_job_is_sent_alone_until_it_is_stored_and_nobody_waits_for_it(store: Any, writer: Writer) -> None:
    locked = an_append()
    unlocked = threading.Event()

    def alone(item: Append) -> Answer:
        free = unlocked.wait(0.01)
        return stored(item) if free else Answer(item.job_id, Code.BUSY, 0)

    store.answer = lambda item: Answer(item.job_id, Code.BUSY, 0) if item == locked else stored(item)
    store.answer_alone = alone
    waiting = writer.append(locked)
    for _ in range(20):
        known([writer.append(an_append())])
    assert not waiting.done()
    unlocked.set()
    assert known([waiting]) == [Code.STORED]
    assert set(map(id, store.alone)) == {id(locked)}


# --- outages ---------------------------------------------------------------------------------------------------------


def test_an_append_is_sent_again_as_it_is_until_its_outcome_is_known(store: Any, writer: Writer) -> None:
    errors = [OutcomeUnknown("cut"), StoreUnavailable("disk full"), OutcomeUnknown("cut")]

    def fail(item: Append) -> Answer:
        if errors:
            raise errors.pop()
        return stored(item)

    store.answer = fail
    item = an_append()
    assert known([writer.append(item)]) == [Code.STORED]
    assert store.batches == [[item]] * 4


def test_an_outage_is_said_once_and_then_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    seconds = [0.0]
    outage = Outage(monotonic=lambda: seconds[0])
    with caplog.at_level(logging.INFO, "steplog.eventstore"):
        for seconds[0] in (0.0, 1.0, 2.0, SAID_EVERY_S + 1, SAID_EVERY_S + 2):
            outage.met(StoreUnavailable("the disk is full (53100)"))
        outage.over()
        outage.over()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING"]
    assert "the disk is full (53100)" in caplog.text


def test_a_lost_connection_is_a_warning_and_a_store_that_cannot_is_an_error_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage(monotonic=lambda: 0.0)
    with caplog.at_level(logging.INFO, "steplog.eventstore"):
        outage.met(OutcomeUnknown("cut"))
        outage.met(OutcomeUnknown("cut"))
        outage.met(StoreUnavailable("the disk is full (53100)"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


# --- its end ---------------------------------------------------------------------------------------------------------


def test_closing_writes_what_is_queued(store: Any) -> None:
    store.hold()
    writer = Writer(store)
    promises = [writer.append(an_append()) for _ in range(10)]
    closer = threading.Thread(target=writer.close)
    closer.start()
    store.open.set()
    closer.join(KNOWN_S_MAX)
    assert known(promises) == [Code.STORED] * 10
    with pytest.raises(StoreUnavailable, match="closed"):
        writer.append(an_append())


def test_closing_while_the_store_is_away_tells_every_waiting_caller(store: Any) -> None:
    def away(item: Append) -> Answer:
        raise OutcomeUnknown("away")

    store.answer = away
    writer = Writer(store)
    first = writer.append(an_append())
    store.await_batch()
    others = [writer.append(an_append()) for _ in range(3)]
    writer.close()
    for promised in [first, *others]:
        with pytest.raises(StoreUnavailable):
            promised.result(0)


def test_closing_gives_up_on_a_store_that_does_not_answer(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "CLOSING_S_MAX", 0.01)
    store.hold()
    writer = Writer(store)
    promises = [writer.append(an_append()) for _ in range(3)]
    store.await_batch()
    writer.close()
    for promised in promises:
        with pytest.raises(OutcomeUnknown):
            promised.result(0)
    store.open.set()
    writer._thread.join(KNOWN_S_MAX)
