"""Schedules: the job of each time once across all workers, in the zone's own time, and what is made up for."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from steplog import InputRefused, Workflow
from steplog.engine.errors import DefinitionError
from steplog.engine.schedules import Firing, Missed, due_times, schedule_of
from steplog.eventstore.store import HeadQuery, Store
from steplog.testing.clock import VirtualClock
from steplog.testing.memory import MemoryStore


class Night(BaseModel):
    house: int = 7


def nightly(missed: Missed = "latest") -> Workflow[Night]:
    wf = Workflow("nightly", input=Night)
    wf.sub_step(name="count")(lambda: 1)
    wf.schedule("0 3 * * *", timezone="Europe/Berlin", input=Night(), missed=missed)
    return wf


def times(store: Store) -> list[str]:
    return sorted(head.columns.wake_at or "" for head in store.heads(HeadQuery()))


def firing(store: MemoryStore, *workflows: Workflow[Night]) -> Firing:
    return Firing(store, store.clock, workflows)


@pytest.fixture
def memory() -> MemoryStore:
    clock = VirtualClock()
    store = MemoryStore(clock)
    clock.advance((datetime(2027, 1, 1, 12, tzinfo=UTC) - datetime.fromisoformat(clock.now())).total_seconds())
    return store


def advance(store: MemoryStore, hours: float) -> None:
    assert isinstance(store.clock, VirtualClock)
    store.clock.advance(hours * 3600)


def test_a_schedule_fires_at_its_time_in_its_zone_and_not_before(memory: MemoryStore) -> None:
    workers = firing(memory, nightly())
    workers.fire()
    assert (times(memory), workers.next_at) == ([], "2027-01-02T02:00:00.000000Z")
    advance(memory, 14.5)
    workers.fire()
    workers.fire()
    assert times(memory) == ["2027-01-02T02:00:00.000000Z"]
    (head,) = memory.heads(HeadQuery())
    assert head.columns.tags == {"schedule": "0 3 * * *"}


def test_all_workers_together_fire_once(store: Store) -> None:
    wf = nightly()
    clock = VirtualClock()
    clock.advance((datetime.fromisoformat(store.now()) - datetime.fromisoformat(clock.now())).total_seconds())
    workers = [Firing(store, clock, [wf]) for _ in range(4)]
    for worker in workers:
        worker.fire()
    clock.advance(86400)
    threads = [threading.Thread(target=worker.fire) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times(store)) == 1
    (known,) = store.schedules()
    assert (known.workflow, known.cron, known.last_at) == ("nightly", "0 3 * * *", times(store)[0])


@pytest.mark.parametrize(("missed", "made_up"), [("skip", 0), ("latest", 1), ("all", 3)])
def test_times_that_came_while_no_worker_ran_are_made_up_for_as_declared(
    memory: MemoryStore, missed: Missed, made_up: int
) -> None:
    firing(memory, nightly(missed)).fire()
    advance(memory, 3 * 24)
    firing(memory, nightly(missed)).fire()
    assert len(times(memory)) == made_up
    firing(memory, nightly(missed)).fire()
    assert len(times(memory)) == made_up


def test_a_schedule_that_is_refused_is_told_of_and_keeps_no_other_from_its_time(
    memory: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Sizes(BaseModel):
        share: float = 1.0

    refused = Workflow("refused", input=Sizes)
    refused.sub_step(name="count")(lambda: 1)
    refused.schedule("0 3 * * *", timezone="Europe/Berlin", input=Sizes(share=float("nan")))
    workers = Firing(memory, memory.clock, [refused, nightly()])
    workers.fire()
    for _ in range(2):
        advance(memory, 24)
        workers.fire()
        workers.fire()
    assert times(memory) == ["2027-01-02T02:00:00.000000Z", "2027-01-03T02:00:00.000000Z"]
    assert [said for said in caplog.messages if "cannot be fired" in said] == [caplog.messages[0]] * 2


def test_a_schedule_fires_for_no_time_before_it_was_first_seen(memory: MemoryStore) -> None:
    firing(memory, nightly("all")).fire()
    assert times(memory) == []


def test_summer_time_neither_doubles_nor_loses_a_night() -> None:
    schedule = schedule_of(None, "30 2 * * *", "Europe/Berlin", None, "all")
    spring = due_times(schedule, "2027-03-27T12:00:00.000000Z", "2027-03-29T12:00:00.000000Z")
    autumn = due_times(schedule, "2027-10-30T12:00:00.000000Z", "2027-11-01T12:00:00.000000Z")
    assert (len(spring), len(autumn)) == (2, 2)


def test_what_cannot_be_scheduled_is_refused_where_it_is_declared() -> None:
    wf = nightly()
    for cron, timezone in (("61 3 * * *", "UTC"), ("0 3 * * *", "Mars/Olympus"), ("0 0 31 2 *", "UTC")):
        with pytest.raises(DefinitionError):
            wf.schedule(cron, timezone=timezone, input=Night())
    with pytest.raises(DefinitionError, match="twice"):
        wf.schedule("0 3 * * *", input=Night())
    with pytest.raises(InputRefused):
        wf.schedule("0 4 * * *", input={"house": "x"})  # type: ignore[arg-type]  # what the test is about
    assert len(wf.schedules) == 1
