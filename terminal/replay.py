"""`replay`: the history folded before one's eyes, event by event, on a stream or key by key."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.eventstore.store import Head
from steplog.projections.snapshot import snapshot
from steplog.projections.state import State
from steplog.terminal.console import Console
from steplog.terminal.history import HistoryLines
from steplog.terminal.screen import Screen
from steplog.terminal.times import duration
from steplog.terminal.tree import View, tree

Steps = Iterable[tuple[Event, State]]
"""Events, each with the state it leads to."""

_BAR_COLUMNS = 8


class Replay:
    """Shows each step of a fold as the console's output asks for, and remembers the last."""

    def __init__(self, console: Console, head: Head) -> None:
        self._console = console
        self._job_id = head.job_id
        self._last_version = head.version
        self._look = console.look
        self._lines: HistoryLines | None = None

    def show(self, steps: Steps) -> tuple[Event, State]:
        """Show every step; the last one. Raises DamagedLog where there is none."""
        began = time.perf_counter()
        last: tuple[Event, State] | None = None
        for event, state in steps:
            last = event, state
            if self._console.output == "table":
                self._console.lines([self._line(event, state)])
            elif self._console.output == "jsonl":
                self._console.document(step_document(event, state))
        self._seconds = time.perf_counter() - began
        if last is None:
            raise DamagedLog(self._job_id, 1, "missing")
        return last

    def conclude(self, view: View, *, compared: bool) -> None:
        """Show what the fold came to, and whether it is what the store has."""
        version = view.state["version"]
        if self._console.output == "table":
            self._console.lines(["", *tree(view)])
        elif self._console.output == "json":
            matches = True if compared else None
            document = {"version": version, "of": self._last_version, "matches_head": matches}
            self._console.document({**document, "snapshot": snapshot(view.state)})
        outcome = "the same as the store's head" if compared else f"of {self._last_version}"
        self._console.note(f"{version} events folded in {duration(self._seconds)}: {outcome}")

    def _line(self, event: Event, state: State) -> str:
        if self._lines is None:
            self._lines = HistoryLines(event, self._last_version, self._look)
        done, total = state["done"], state["total"]
        progress = f"{self._look.bar(done, total, _BAR_COLUMNS)} {done:>{len(str(total))}}/{total}"
        return f"{self._look.fit(progress)}  {self._lines.line(event)}"


def key_by_key(steps: Steps, view: Callable[[State], View]) -> Iterator[tuple[Event, State]]:
    """The steps one at a time: the job's tree is shown below until Enter asks for the next, or `q` for no more."""
    screen = Screen(sys.stdout)
    for event, state in steps:
        yield event, state
        screen.draw([*tree(view(state)), "Enter: the next event, q: stop"])
        key = click.getchar()
        screen.clear()
        if key in ("q", "Q", "\x1b"):
            return


def step_document(event: Event, state: State) -> dict[str, Any]:
    """A step as JSON shows it."""
    return {
        "version": event.version,
        "recorded_at": event.recorded_at,
        "type": event.type,
        "phase": event.data.get("phase"),
        "sub_step": event.data.get("sub_step"),
        "status": state["status"],
        "progress": {"done": state["done"], "total": state["total"]},
    }
