"""The demo: runs a registration in a process of its own, kills that with SIGKILL half-way, resumes, counts the effects.

It looks on from outside only: at the log, at the service's requests, at the restaurant's database.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from steplog.eventstore.connect import open_store
from steplog.eventstore.errors import SteplogError
from steplog.eventstore.store import HeadQuery, Store
from steplog.examples.registration.api import start_service, wait_for_service
from steplog.examples.registration.effects import count_effects
from steplog.examples.registration.model import Registration
from steplog.examples.registration.places import service_folder
from steplog.examples.registration.telling import Teller
from steplog.projections.evolve import fold
from steplog.projections.state import ENDED, STOPPED, State

MODULE = "steplog.examples.registration"
STEPLOG = (sys.executable, "-m", "steplog")
STORE_FILE = "steplog-demo.db"
WORK_FOLDER = "registration"
WORKER_LOG = "worker.log"
PACE = 0.4
KILL_AT = 0.4
"""How much of the menu is in when the worker is killed."""
POLL_S = 0.03
PATIENCE_S = 60.0

T = TypeVar("T")


class DemoFailed(SteplogError):
    """The demo did not get as far as it should."""

    next_step = f"read {WORKER_LOG}, beside the demo's store"


def run_demo(folder: Path, *, out: TextIO) -> int:
    """Run the demo in that folder and tell about it; 0 if every effect was counted once, else 1.

    Raises DemoFailed where there is nothing to count: a process ended too early, or nothing moved.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    demo = Demo(folder, Teller(out))
    with closing(demo.store), service(service_folder(demo.given.folder)):
        job_id = demo.run_and_kill()
        return demo.resume(job_id)


class Demo:
    """One run of the demo."""

    def __init__(self, folder: Path, tell: Teller) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / STORE_FILE}"
        self.given = Registration(folder=folder / WORK_FOLDER, pace=PACE)
        self.store: Store = open_store(self.url)
        self.tell = tell
        self.began = time.monotonic()
        tell.opening(self.url)

    def run_and_kill(self) -> str:
        """Start the job in a process of its own, kill that in the middle of the menu import; the job's id."""
        known = {head.job_id for head in self.store.heads(HeadQuery())}

        def started() -> str | None:
            return next(
                (head.job_id for head in self.store.heads(HeadQuery(limit=1)) if head.job_id not in known), None
            )

        command = ["run", f"{MODULE}:registration", "--input", self.given.model_dump_json()]
        with self.worker(command) as worker:
            job_id = wait_for(worker, started)
            wait_for(worker, lambda: half_way(self.look(job_id)))
            worker.kill()
            worker.wait()
        began = time.perf_counter()
        self.tell.killed(fold(self.store.read(job_id)), worker.pid, time.perf_counter() - began)
        return job_id

    def resume(self, job_id: str) -> int:
        """Resume the job in another process, count the effects when it has ended; the demo's exit code."""
        killed_at = self.store.head(job_id).version
        with self.worker(["--module", MODULE, "resume", job_id]) as worker:
            wait_for(worker, lambda: stopped(self.look(job_id)))
        events = list(self.store.read(job_id))
        account = count_effects(events)
        self.tell.ended(fold(events), time.monotonic() - self.began)
        self.tell.effects(account)
        self.tell.commands(self.url, killed_at)
        return 1 if account.problems else 0

    def look(self, job_id: str) -> State:
        """The job as the log has it now; phases that have ended since the last look are told."""
        state = fold(self.store.read(job_id))
        self.tell.phases(state)
        return state

    @contextmanager
    def worker(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """A steplog process, gone when the block is left."""
        with (self.folder / WORKER_LOG).open("ab") as log:
            process = subprocess.Popen(
                [*STEPLOG, "--db", self.url, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        with ending(process):
            yield process


@contextmanager
def service(folder: Path) -> Iterator[None]:
    """The local service, for as long as the block lasts."""
    with ending(start_service(folder)):
        wait_for_service(folder)
        yield


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave nothing behind."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


def wait_for(worker: subprocess.Popen[bytes], look: Callable[[], T | None]) -> T:
    """What `look` sees once it sees something. Raises DemoFailed if the worker ends before, or for lack of patience."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ended = worker.poll() is not None
        seen = look()
        if seen is not None:
            return seen
        if ended:
            raise DemoFailed(f"the worker ended too early, with exit code {worker.returncode}")
        time.sleep(POLL_S)
    raise DemoFailed(f"nothing happened for {PATIENCE_S:g} s")


def half_way(state: State) -> State | None:
    """The state, if the menu import is far enough for the kill."""
    cursor = state["phases"]["phase2"]["sub_steps"]["menuImport"]["cursor"]
    return state if cursor and cursor["rows"] >= KILL_AT * cursor["of"] else None


def stopped(state: State) -> State | None:
    """The state, if nothing more will happen by itself."""
    return state if state["status"] in ENDED | STOPPED else None
