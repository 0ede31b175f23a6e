"""Following a job in the store from a thread of its own while it runs: as a tree in place, or as a line per event."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Protocol

from steplog.eventstore.errors import StoreError
from steplog.eventstore.events import Event
from steplog.eventstore.store import Store
from steplog.projections.evolve import evolve
from steplog.projections.state import ENDED, STOPPED, State
from steplog.terminal.console import Console
from steplog.terminal.history import HistoryLines
from steplog.terminal.look import Look
from steplog.terminal.screen import Screen, is_screen
from steplog.terminal.tree import View, tree

POLL_S = 0.1

OpenStore = Callable[[], Store]


class Shows(Protocol):
    """What becomes visible of a job's history."""

    def events(self, events: list[Event], state: State) -> None:
        """Show what has happened since the last call."""
        ...

    def instant(self, now: str) -> None:
        """Show that time has passed."""
        ...


class Follower:
    """A job's history as it grows."""

    def __init__(self, store: Store, job_id: str) -> None:
        self._store = store
        self._job_id = job_id
        self.state: State | None = None

    def advance(self) -> list[Event]:
        """The events since the last call, folded into the state."""
        events = []
        for event in self._store.read(self._job_id, self.state["version"] if self.state else 0):
            self.state = evolve(self.state, event)
            events.append(event)
        return events


class LiveTree:
    """The job's tree, drawn again in place."""

    def __init__(self, screen: Screen, name: str, look: Look) -> None:
        self._screen = screen
        self._name = name
        self._look = look
        self._state: State | None = None

    def events(self, events: list[Event], state: State) -> None:
        self._state = state

    def instant(self, now: str) -> None:
        if self._state is not None:
            self._screen.draw(self._fitting(View(self._state, self._name, now, self._look)))

    def _fitting(self, view: View) -> list[str]:
        """The whole tree or, where the terminal has too few rows, what is going on."""
        rows = self._screen.rows
        lines = tree(view)
        if len(lines) > rows:
            lines = tree(view, detail="current")
        if len(lines) > rows:
            lines = [*lines[: rows - 1], f"… {len(lines) - rows + 1} more lines"]
        return lines


class EventLog:
    """A line per event, written as they come."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._lines: HistoryLines | None = None

    def events(self, events: list[Event], state: State) -> None:
        for event in events:
            if self._lines is None:
                self._lines = HistoryLines(event, 0, self._look)
            sys.stderr.write(f"{self._lines.line(event)}\n")

    def instant(self, now: str) -> None:
        """Nothing to do: no line depends on the time."""


def until_it_stops(store: Store, job_id: str, timeout_s: float | None) -> bool:
    """Wait until the job has ended or waits for a person; False where that takes longer."""
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    while store.head(job_id).columns.status not in ENDED | STOPPED:
        if give_up_at is not None and time.monotonic() >= give_up_at:
            return False
        time.sleep(POLL_S)
    return True


def watches(console: Console, wanted: bool | None) -> bool:
    """Whether a job is shown while it runs: as asked for, else where stderr can show it."""
    return is_screen(sys.stderr) and not console.quiet if wanted is None else wanted


@contextmanager
def watching(
    console: Console, open_store: OpenStore, job_id: str, name: str, *, watch: bool | None, beyond: int = 0
) -> Iterator[None]:
    """Show the job on stderr while the body runs it; what handlers print goes there too, so that stdout is ours."""
    in_place, look, screen = is_screen(sys.stderr), console.look_of_notes, Screen(sys.stderr)
    shows: Shows = LiveTree(screen, name, look) if in_place else EventLog(look)
    with ExitStack() as stack:
        if not watches(console, watch):
            stack.enter_context(redirect_stdout(sys.stderr))
        else:
            stack.enter_context(screen.over_standard_streams() if in_place else redirect_stdout(sys.stderr))
            stack.enter_context(following(open_store, job_id, shows, beyond=beyond))
        yield
    if in_place and sys.stdout.isatty() and console.output == "table":
        screen.clear()


@contextmanager
def following(open_store: OpenStore, job_id: str, shows: Shows, *, beyond: int = 0) -> Iterator[None]:
    """Show a job from a thread for as long as the body runs, through a store of its own.

    Nothing is shown before its log has gone beyond that version. A store that fails ends the show, not the job.
    """
    ended = threading.Event()
    thread = threading.Thread(
        target=_follow, args=(open_store, job_id, shows, beyond, ended), name="steplog-watch", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(open_store: OpenStore, job_id: str, shows: Shows, beyond: int, ended: threading.Event) -> None:
    with contextlib.suppress(StoreError), contextlib.closing(open_store()) as store:
        follower = Follower(store, job_id)
        last = False
        while not last:
            last = ended.wait(POLL_S)
            events = follower.advance()
            if follower.state is None or follower.state["version"] <= beyond:
                continue
            if events:
                shows.events(events, follower.state)
            shows.instant(store.now())
