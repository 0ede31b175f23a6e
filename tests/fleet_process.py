"""A worker of a fleet in a process of its own, that others stop and kill; what it did goes to the outside witness."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel
from registration_shape import registration_shape
from witness_process import KillPoint, Place, WitnessedStore, note

from steplog import Settings, Step, Workflow, run_worker
from steplog.engine import worker as engine_worker
from steplog.eventstore.errors import WorkerDead
from steplog.eventstore.process_identity import own_identity
from steplog.eventstore.store import WorkerIdentity

DECLARED_DEAD = 4
"""The exit code of a worker that was declared dead."""


QUICK = Settings(interruptions_max=1000, poll_s=0.05, poll_s_max=0.2)


@dataclass(frozen=True)
class Fleet:
    """How the workers of a test are."""

    shape: Literal["registration", "steady", "deadly"] = "registration"
    settings: Settings = QUICK
    concurrency: int = 8
    far: bool = False
    """Whether nobody can look at its process: only its lease tells that it died."""
    holds_gil_s: float = 0.0
    """How long its handler holds the interpreter, the first time it runs."""


def serve(place: Place, fleet: Fleet) -> None:
    """Claim and run jobs until told to stop."""
    if fleet.far:
        engine_worker.own_identity = _far  # type: ignore[attr-defined]  # as from another machine
    store = place.open()
    witnessed: Any = WitnessedStore(store, place.folder, KillPoint("never"))
    note(place.folder / "started", {"pid": os.getpid()})
    try:
        run_worker(_workflow(place, fleet), store=witnessed, concurrency=fleet.concurrency, settings=fleet.settings)
    except WorkerDead:
        sys.exit(DECLARED_DEAD)
    store.close()


def _far(worker_id: str) -> WorkerIdentity:
    return replace(own_identity(worker_id), boot_id=None)


def _workflow(place: Place, fleet: Fleet) -> Workflow[Any, Any]:
    def effect(key: str, idempotency_key: str) -> None:
        note(place.folder / "effects", {"key": key, "idempotency_key": idempotency_key})

    if fleet.shape == "registration":
        return registration_shape(effect)
    return deadly() if fleet.shape == "deadly" else steady(place, fleet.holds_gil_s)


class Dose(BaseModel):
    deadly: bool = False


def deadly() -> Workflow[Dose]:
    """Jobs that take a moment, one of which kills its process whenever it runs."""
    wf = Workflow("deadly", input=Dose)

    @wf.sub_step
    async def swallow(step: Step[Dose]) -> None:
        await asyncio.sleep(0.05)
        if step.input.deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    return wf


def steady(place: Place, holds_gil_s: float = 0.0) -> Workflow[Any, Any]:
    """A job that says all the time where it is, and that ends when the file `enough` is there."""
    wf: Workflow[Any, Any] = Workflow("steady")

    @wf.sub_step(on_interrupt="retry")
    async def tick(step: Step) -> int:
        note(place.folder / "attempts", {"pid": os.getpid(), "attempt": step.attempt})
        count = step.cursor or 0
        while not (place.folder / "enough").exists():
            count += 1
            await step.checkpoint(count)
            await asyncio.sleep(0.005)
            if holds_gil_s and step.attempt == 1 and count == 5:
                ctypes.PyDLL(None).usleep(int(holds_gil_s * 1_000_000))  # unlike CDLL it keeps the GIL
        return count

    return wf
