"""A worker process that ends itself with a real SIGKILL at a chosen boundary, and tells an outside witness first.

Boundaries: `before` the append that would make the log N events long, `after` it is durable and before anything follows
from it, and `effect`, after the N-th effect happened and before its handler returns. What was acknowledged and which
effects happened goes, synced, into files of the witness's own; nothing of a run's memory survives.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from registration_shape import Signup, registration_shape

from steplog import Settings
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.eventstore.chain import Position
from steplog.eventstore.postgres import PostgresStore
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Answer, Append, Claim, ClaimRule, Code, NewJob, Store

A = TypeVar("A")

SETTINGS = Settings(interruptions_max=1000)


@dataclass(frozen=True)
class KillPoint:
    """When the process ends itself; the count is of events in the log, or of effects of this process."""

    kind: Literal["before", "after", "effect", "never"]
    count: int = 0


@dataclass(frozen=True)
class Place:
    """Where a run happens: a store that any process can open, and the witness's folder."""

    folder: Path
    dsn: str | None = None
    schema: str = ""

    def open(self) -> Store:
        return PostgresStore(self.dsn, schema=self.schema) if self.dsn else SQLiteStore(self.folder / "steplog.db")


def work(place: Place, kill: KillPoint) -> None:
    """Run the job, or resume it if it is there, until it ends or the kill point is reached."""
    store = place.open()
    witnessed: Any = WitnessedStore(store, place.folder, kill)
    workflow = registration_shape(Effects(place.folder, kill).happen)
    jobs = store.job_of_key(None, "the-job")
    if jobs and store.head(jobs[0]).columns.status == "completed":
        return
    if jobs:
        resume_blocking(workflow, jobs[0], witnessed, by="witness", settings=SETTINGS)
    else:
        run_blocking(workflow, Signup(), key="the-job", store=witnessed, settings=SETTINGS)
    store.close()


class Effects:
    """What handlers of this process did to the outside, which may be the end of it."""

    def __init__(self, folder: Path, kill: KillPoint) -> None:
        self._folder = folder
        self._kill = kill
        self._happened = 0

    def happen(self, key: str, idempotency_key: str) -> None:
        note(self._folder / "effects", {"key": key, "idempotency_key": idempotency_key})
        self._happened += 1
        if self._kill.kind == "effect" and self._happened == self._kill.count:
            os.kill(os.getpid(), signal.SIGKILL)


def note(path: Path, what: dict[str, Any]) -> None:
    """One line, on disk when it returns."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, json.dumps(what).encode() + b"\n")
    os.fsync(file)
    os.close(file)


class WitnessedStore:
    """A store whose acknowledgements are noted outside, and that may be the end of its process."""

    def __init__(self, store: Store, folder: Path, kill: KillPoint) -> None:
        self._store = store
        self._folder = folder
        self._kill = kill

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, job: NewJob) -> str:
        return self._around(len(job.events), lambda: self._store.create(job))

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        answers = self._around(
            max(item.events[-1].version for item in batch), lambda: self._store.append(batch), judge=_stored
        )
        for item, answer in zip(batch, answers, strict=True):
            if answer.code is Code.STORED:
                acknowledged = {event.version: event.event_id for event in item.events}
                who = {"job_id": item.job_id, "worker_id": item.claim.worker_id}
                note(self._folder / "acks", {"events": acknowledged, **who})
        return answers

    def claim(self, job_id: str, worker_id: str, known: Position, rule: ClaimRule) -> Claim:
        return self._around(known.version + 1, lambda: self._store.claim(job_id, worker_id, known, rule))

    def _around(self, version: int, write: Callable[[], A], judge: Callable[[A], bool] = lambda answer: True) -> A:
        reached = self._kill.kind in ("before", "after") and version >= self._kill.count
        if reached and self._kill.kind == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = write()
        if reached and judge(answer):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def _stored(answers: list[Answer]) -> bool:
    return any(answer.code is Code.STORED for answer in answers)
