"""What every measured program does: read its work, say what it measured. Standard library only.

A program is started in a process and an environment of its own, with its work as one JSON argument, and prints one
JSON line: how many units took how many seconds, and the durability settings it read back from its own connection.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Work:
    """What to do, and on which store."""

    what: str
    store: str
    """`postgresql://…`, `sqlite:////file`, or a server's address."""
    jobs: int = 1
    steps: int = 20
    at_once: int = 1
    events: int = 0
    workers: int = 1
    """Of a fleet: how many processes run what one submits, each so many jobs at once."""


@dataclass
class Measured:
    """What it came to."""

    units: float
    seconds: float
    settings: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    """What else it came to, each with its unit in its name."""
    warm_up: float = 0.0
    """Units done before the clock ran."""


class Stopwatch:
    """Seconds spent inside `running`, and the CPU that this process took for it."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        started, cpu_started = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu_started


def leave_alone() -> None:
    """Have the collector of garbage not look again at what is there by now: it is not what is measured."""
    gc.collect()
    gc.freeze()


async def at_once(run: Callable[[], Awaitable[T]], work: Work) -> list[T]:
    """What the work's jobs return, as many of them under way at any time as it says."""
    returned: list[T] = []
    jobs = iter(range(work.jobs))

    async def one_after_the_other() -> None:
        for _ in jobs:
            returned.append(await run())

    await asyncio.gather(*(one_after_the_other() for _ in range(work.at_once)))
    return returned


def main(measure: Callable[[Work], Measured]) -> None:
    """Measure the work given on the command line."""
    work = Work(**json.loads(sys.argv[1]))
    measured = measure(work)
    sys.stdout.write(json.dumps(measured.__dict__) + "\n")
    sys.stdout.flush()


POSTGRES_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")


def settings_of_postgres(show: Callable[[str], object]) -> dict[str, str]:
    """What decides whether a commit survives a power cut, as the program's own connection sees it."""
    return {name: str(show(f"show {name}")) for name in POSTGRES_SETTINGS}


def settings_of_sqlite(pragma: Callable[[str], object]) -> dict[str, str]:
    """The same for SQLite; synchronous 2 is FULL."""
    return {name: str(pragma(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")}
