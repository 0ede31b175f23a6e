"""A process killed anywhere in a transactional sub-step: its effect is there exactly when its record is, once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from forked import processes
from group_commit_process import KillStatement
from message_proxy import MessageProxy, Point, Side
from psycopg.conninfo import make_conninfo
from transactional_process import EFFECTS, work
from transactional_stores import effects, make_table, postgres_beside
from witness_figures import Show
from witness_process import Place

from steplog.eventstore.events import Event
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store

DONE_S_MAX = 60
WHENS: tuple[Literal["before", "after"], ...] = ("before", "after")

_numbers = count(1)


class Trials:
    """Kills processes, each inside a job of its own, and compares effects with the log before and after."""

    def __init__(self, place: Place, near: Store, await_quiet: Callable[[], None] = lambda: None) -> None:
        self._place = place
        self._near = near
        self._await_quiet = await_quiet
        self.killed = 0
        self.found: set[int] = set()
        """How many effects there were after a kill."""

    def run(self, *, kill: KillStatement | None = None, begin: Callable[[int], None] = lambda pid: None) -> bool:
        """One job: whether its process was killed, rather than finished."""
        key = f"job {next(_numbers)}"
        ours, theirs = processes.Pipe()
        process = processes.Process(target=work, args=(self._place, key, theirs, kill))
        process.start()
        theirs.close()
        assert process.pid is not None
        assert ours.recv() == "about to begin"
        begin(process.pid)
        ours.send("go on")
        process.join(DONE_S_MAX)
        ours.close()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode:
            self._await_quiet()
            self.found.add(len(self.check(key)))
            self.killed += 1
            heir = processes.Process(target=work, args=(self._place, key, None, None))
            heir.start()
            heir.join(DONE_S_MAX)
            assert heir.exitcode == 0
        assert self.check(key) == EFFECTS
        return process.exitcode != 0

    def check(self, key: str) -> list[str]:
        """What happened, which is what the log says, no more and no less."""
        (job_id,) = self._near.job_of_key(None, key)
        recorded = [what for event in self._near.read(job_id) for what in _effects_of(event)]
        assert [name for name in effects(self._near) if name.startswith(job_id)] == [
            f"{job_id} {what}" for what in recorded
        ]
        return recorded


def _effects_of(event: Event) -> list[str]:
    if event.type == "SubStepCheckpointed":
        return [f"page {event.data['cursor'] - 1}"]
    return ["published"] if event.type == "SubStepCompleted" and event.data["sub_step"] == "publish" else []


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.heavy)])
def test_on_sqlite_killed_at_any_statement_the_effect_is_there_once_and_its_record_with_it(
    tmp_path: Path, every: int, show: Show
) -> None:
    """From the first transaction's begin to the job's end."""
    with closing(SQLiteStore(tmp_path / "steplog.db")) as near:
        make_table(near)
        trials = Trials(Place(tmp_path), near)
        for number in count(1, every):
            if not all(trials.run(kill=KillStatement("", number, when)) for when in WHENS):
                break
    show("killed inside transactional sub-steps on SQLite", f"{trials.killed} times, lost 0, doubled 0")
    assert len(trials.found) > 1


@pytest.mark.parametrize("every", [31, pytest.param(3, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("side", ["client", "server"])
def test_on_postgres_killed_at_any_message_the_effect_is_there_once_and_its_record_with_it(
    tmp_path: Path, postgres_dsn: str, postgres_schema: str, side: Side, every: int, show: Show
) -> None:
    name = f"mortal {postgres_schema}"

    def await_quiet() -> None:
        """What a dead process has sent may still be at work."""
        deadline = time.monotonic() + DONE_S_MAX
        while watcher.execute("select from pg_stat_activity where application_name = %s", [name]).rowcount:
            assert time.monotonic() < deadline

    with (
        MessageProxy(make_conninfo(postgres_dsn, application_name=name)) as proxy,
        psycopg.connect(postgres_dsn, autocommit=True) as watcher,
        closing(postgres_beside(postgres_dsn, postgres_schema)) as near,
    ):
        near.migrate()
        make_table(near)
        trials = Trials(Place(tmp_path, proxy.dsn, postgres_schema), near, await_quiet)
        for number in count(1, every):
            points = [Point(side, number, when) for when in WHENS]
            if not all(trials.run(begin=partial(kill_at, proxy, point)) for point in points):
                break
    show(f"killed at messages of the {side} in transactional sub-steps", f"{trials.killed} times, lost 0, doubled 0")
    assert len(trials.found) > 1


def kill_at(proxy: MessageProxy, point: Point, pid: int) -> None:
    def kill() -> None:
        with suppress(ProcessLookupError):  # it was done before that message came
            os.kill(pid, signal.SIGKILL)

    proxy.arm(point, kill)
