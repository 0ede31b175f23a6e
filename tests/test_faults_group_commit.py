"""A process killed inside a group commit, with a member that cannot be stored: each job whole or not at all, nothing
acknowledged that is not there, and the same appends sent again by another process are stored once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from append_witness import KNOWN_S_MAX, owned_jobs
from forked import processes
from group_commit_process import KillStatement, commit_group
from message_proxy import MessageProxy, Point, Side
from psycopg.conninfo import make_conninfo
from witness_figures import Show
from witness_process import Place

from steplog.eventstore.errors import StoreError
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.store import Append, Code, Store
from steplog.eventstore.writer import Writer

SIZES = [1, 2, 8, 64]
Poison = Literal["fenced", "refused"]

_numbers = count(1)


@dataclass
class Group:
    """Appends of as many jobs, of which the last cannot be stored, where there is more than one."""

    first: Append
    good: list[Append]
    poisoned: list[Append]

    @property
    def is_set_apart(self) -> bool:
        """Whether the store refuses the group as it is, so that it is stored in parts."""
        return any(event.version == 0 for item in self.poisoned for event in item.events)

    @property
    def items(self) -> list[Append]:
        return [*self.good, *self.poisoned]


def a_group(store: Store, size: int, poison: Poison) -> Group:
    first, *jobs = owned_jobs(store, size + 1)
    items = [job.next("a", "b") for job in jobs]
    poisoned = [poisoned_by(poison, items.pop())] if size > 1 else []
    return Group(first.next("first"), items, poisoned)


def poisoned_by(poison: Poison, item: Append) -> Append:
    if poison == "fenced":
        return item._replace(claim=replace(item.claim, claim_id="another"))
    return item._replace(events=[event._replace(version=0) for event in item.events])


class Trials:
    """Kills processes that commit groups, and checks what each left."""

    def __init__(self, place: Place, near: Store, await_quiet: Callable[[], None] = lambda: None) -> None:
        self.near = near
        self._await_quiet = await_quiet
        self._place = place
        self.trials = 0
        self.killed = 0
        self.stored_before_the_kill = 0

    def run(
        self, group: Group, *, kill: KillStatement | None = None, begin: Callable[[int], None] = lambda pid: None
    ) -> None:
        """One process, killed at a statement of its own, or after `begin` heard which process is about to commit."""
        ours, theirs = processes.Pipe()
        acks = self._place.folder / f"acks-{next(_numbers)}"
        acks.touch()
        process = processes.Process(
            target=commit_group, args=(self._place, group.first, group.items, kill, theirs, acks)
        )
        process.start()
        theirs.close()
        assert process.pid is not None
        assert ours.recv() == len(group.items)
        begin(process.pid)
        ours.send("go on")
        process.join(KNOWN_S_MAX)
        ours.close()
        assert process.exitcode in (0, -signal.SIGKILL)
        self.trials += 1
        self.killed += process.exitcode != 0
        self._await_quiet()
        self.check(group, set(acks.read_text().split()))

    def check(self, group: Group, acknowledged: set[str]) -> None:
        stored = {item.job_id for item in group.good if self.is_stored(item)}
        self.stored_before_the_kill += bool(stored)
        assert acknowledged <= stored | {group.first.job_id}
        assert group.is_set_apart or stored in (set(), {item.job_id for item in group.good})
        with closing(Writer(self.near)) as writer:
            again = [writer.append(item) for item in group.good]
            refused = [writer.append(item) for item in group.poisoned]
            assert [promised.result(KNOWN_S_MAX).code for promised in again] == [Code.STORED] * len(again)
            for promised in refused:
                assert isinstance(promised.exception(KNOWN_S_MAX), StoreError) or (
                    promised.result().code is Code.FENCED
                )
        assert all(self.is_stored(item) for item in group.good)
        assert all(self.near.head(item.job_id).version == 1 for item in group.poisoned)

    def is_stored(self, item: Append) -> bool:
        """Whether exactly the item is there behind the job's first event. Raises DamagedLog at half of it."""
        found = [event.event_id for event in self.near.read(item.job_id, after=1)]
        assert found in ([], [event.event_id for event in item.events])
        return bool(found)


@pytest.fixture
def show_trials(show: Show) -> Callable[[str, Trials], None]:
    def line(what: str, trials: Trials) -> None:
        stored = f"{trials.stored_before_the_kill} were stored before"
        show(
            f"killed inside group commits of {what}", f"{trials.killed} of {trials.trials}, {stored}, lost 0, doubled 0"
        )

    return line


# --- SQLite ----------------------------------------------------------------------------------------------------------


def statements(size: int) -> Iterator[KillStatement]:
    for when in ("before", "after"):
        yield KillStatement("BEGIN", 1, when)
        yield KillStatement("SELECT version, hash", size, when)
        yield KillStatement("INSERT INTO events", 1, when)
        yield KillStatement("UPDATE jobs", 1, when)
        yield KillStatement("COMMIT", 1, when)


@pytest.mark.parametrize("size", SIZES)
def test_a_group_on_sqlite_killed_at_any_statement_is_whole_or_not_there(
    tmp_path: Path, size: int, show_trials: Callable[[str, Trials], None]
) -> None:
    """Mutants: answers before COMMIT; one commit an item."""
    place = Place(tmp_path)
    with closing(place.open()) as near:
        trials = Trials(place, near)
        for kill in statements(size):
            trials.run(a_group(near, size, "fenced"), kill=kill)
        if size > 1:
            trials.run(a_group(near, size, "refused"), kill=KillStatement("COMMIT", 2, "before"))
    show_trials(f"{size} on SQLite", trials)
    assert trials.killed >= trials.trials - 1
    assert 0 < trials.stored_before_the_kill < trials.trials


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


_MESSAGES: dict[Side, int] = {"client": 5, "server": 6}
"""Of one append: Parse, Bind, Describe, Execute, Sync; and their answers."""


@contextmanager
def killing(proxy: MessageProxy, point: Point) -> Iterator[Callable[[int], None]]:
    """What kills the process it is told of when that message passes."""
    yield lambda pid: proxy.arm(point, lambda: os.kill(pid, signal.SIGKILL))
    proxy.arm(None)


def points(every: int) -> Sequence[Point]:
    """Before and after each message, or some of them."""
    found = [
        Point(side, number, when)
        for side, messages in _MESSAGES.items()
        for number in range(1, messages + 1)
        for when in ("before", "after")
    ]
    return found[::every]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.heavy)])
def test_a_group_on_postgres_killed_at_any_message_is_whole_or_not_there(
    postgres_dsn: str,
    postgres_schema: str,
    postgres_store: PostgresStore,
    tmp_path: Path,
    size: int,
    every: int,
    show_trials: Callable[[str, Trials], None],
) -> None:
    """Mutants: answers before the commit; one transaction an item."""
    name = f"mortal {postgres_schema}"

    def await_quiet() -> None:
        """What a dead process has sent may still be at work."""
        deadline = time.monotonic() + KNOWN_S_MAX
        while watcher.execute("select from pg_stat_activity where application_name = %s", [name]).rowcount:
            assert time.monotonic() < deadline

    with (
        MessageProxy(make_conninfo(postgres_dsn, application_name=name)) as proxy,
        psycopg.connect(postgres_dsn, autocommit=True) as watcher,
    ):
        trials = Trials(Place(tmp_path, proxy.dsn, postgres_schema), postgres_store, await_quiet)
        for number, point in enumerate(points(every)):
            poison: Poison = "refused" if number % 4 == 3 else "fenced"
            with killing(proxy, point) as begin:
                trials.run(a_group(postgres_store, size, poison), begin=begin)
    show_trials(f"{size} on PostgreSQL", trials)
    assert trials.killed >= trials.trials - 1
    assert 0 < trials.stored_before_the_kill < trials.trials
