"""A process that runs a job with transactional sub-steps and is killed inside one: by its own hand at a statement of
SQLite, or by whoever is told that its transaction is about to begin.
"""

from __future__ import annotations

import sqlite3
from multiprocessing.connection import Connection
from typing import Any

from group_commit_process import KillStatement, Mortal
from transactional_stores import postgres_beside
from witness_process import Place

from steplog import Context, Settings, Step, Transaction, Workflow, result
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.eventstore.store import Store, StoreTransaction

SETTINGS = Settings(interruptions_max=1000)
PAGES = 2
EFFECTS = [*(f"page {page}" for page in range(PAGES)), "published"]


class Progress(Context):
    pages: int = 0


def menu() -> Workflow[Any, Progress]:
    """Two pages, each with a checkpoint, then what they lead to, with a sibling beside them."""
    workflow = Workflow("menu", context=Progress)

    @workflow.sub_step
    def load(step: Step[Any, Progress], tx: Transaction) -> int:
        for page in range(step.cursor or 0, PAGES):
            tx.execute("insert into effects values (%s)", [f"{step.job_id} page {page}"])
            step.context.pages += 1
            step.checkpoint(page + 1)
        return step.context.pages

    @workflow.sub_step
    def publish(step: Step, tx: Transaction, pages: int = result(load)) -> None:
        tx.execute("insert into effects values (%s)", [f"{step.job_id} published"])

    @workflow.sub_step
    async def beside() -> None: ...

    return workflow


class Asking:
    """A store that says when its first transaction is about to begin, and waits until that was heard."""

    def __init__(self, store: Store, control: Connection | None, kill: KillStatement | None) -> None:
        self._store = store
        self._control = control
        self._kill = kill

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def begin(self, timeout_s: float | None = None) -> StoreTransaction:
        if self._control is not None:
            self._control.send("about to begin")
            self._control.recv()
            self._control = None
            Mortal.at = self._kill
        return self._store.begin(timeout_s)


def work(place: Place, key: str, control: Connection | None, kill: KillStatement | None) -> None:
    """Run the job, or resume it if it is there, until it ends or its process does."""
    connect: Any = sqlite3.connect
    sqlite3.connect = lambda *given, **named: connect(*given, **named, factory=Mortal)
    store = postgres_beside(place.dsn, place.schema) if place.dsn else place.open()
    asking: Any = Asking(store, control, kill)
    jobs = store.job_of_key(None, key)
    if jobs and store.head(jobs[0]).columns.status == "completed":
        return
    if jobs:
        resume_blocking(menu(), jobs[0], asking, by="witness", settings=SETTINGS)
    else:
        run_blocking(menu(), key=key, store=asking, settings=SETTINGS)
    store.close()
