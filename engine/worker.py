"""A worker: known to the store while it lives, the owner of the jobs it claims, and gone when it closes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from steplog.engine.adoption import adopted, adoption, differences
from steplog.engine.claiming import claim_job, refuse_unsound
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import DataMismatch, PlanMismatch, RunCancelled, SecretsErased
from steplog.engine.fit import misfits
from steplog.engine.history import load
from steplog.engine.isolation.code import refuse_while_importing
from steplog.engine.isolation.processes import Isolation
from steplog.engine.lane import Lane
from steplog.engine.outbox import Outbox
from steplog.engine.plan import plan_of
from steplog.engine.runner import Owned, Runner
from steplog.engine.settings import Settings
from steplog.engine.store_clock import StoreClock, store_clock
from steplog.engine.vault import Vault
from steplog.eventstore.clock import Clock
from steplog.eventstore.errors import StoreError, WorkerDead
from steplog.eventstore.events import PlanAdopted
from steplog.eventstore.process_identity import own_identity
from steplog.eventstore.store import Claim, Store
from steplog.eventstore.writer import Writer
from steplog.projections.state import State

logger = logging.getLogger("steplog.engine")


@dataclass(eq=False, slots=True)
class _Run:
    """A job under way, and how many wait for its end: when the last of them is cancelled it is handed back."""

    runner: Runner
    task: asyncio.Task[State]
    waiting: int = 0


class Worker:
    """Claims jobs and keeps its lease on them. A context manager: entering makes it known, leaving retires it."""

    def __init__(self, store: Store, *, clock: Clock | None = None, settings: Settings | None = None) -> None:
        refuse_while_importing()
        self.store = store
        self.settings = settings or Settings()
        self.clock: Clock = clock or store_clock(store)
        self.worker_id = self.clock.new_id()
        self.writer = Writer(store)
        self.takes_more = True
        """Not once it was declared dead, or left a job without a runner: nobody may claim that one before it ends."""
        self.stopped_by: int | None = None
        """The signal that asked it to stop."""
        self._stop_by: float | None = None
        self._outbox: Outbox | None = None
        self.on_stop: list[Callable[[], None]] = []
        """Called, in any thread, when the worker is told to stop or was declared dead."""
        self._lane = Lane()
        self._isolation = Isolation()
        self._runners: dict[str, tuple[Claim, Runner]] = {}
        self._runs: dict[str, _Run] = {}
        self._ended = threading.Event()
        self._heart_goes_on = True
        self._heart = threading.Thread(target=self._beat, name="steplog-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        try:
            self.store.register_worker(own_identity(self.worker_id), self.settings.lease_s)
        except BaseException:
            self.writer.close()
            raise
        self._heart.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._heart.join()
        if self._heart_goes_on:
            self._retire()

    def _retire(self) -> None:
        self._heart_goes_on = False
        self._isolation.close()
        self.writer.close()
        if self._outbox is not None:
            self._outbox.close()
        try:
            self.store.retire_worker(self.worker_id)
        except StoreError as problem:
            logger.warning("worker %s ends without saying so: %s", self.worker_id, problem)

    # --- claim -------------------------------------------------------------------------------------------------------

    def claim(
        self, job_id: str, definition: AnyDefinition, *, resume_by: str | None = None, adopt_by: str | None = None
    ) -> Owned:
        """Become the job's owner, if it has none or its owner is dead; attempts in flight become interrupted.

        A job that waits for a person is claimed only with `resume_by`, which says who resumes it. The plan and what is
        recorded are compared with the code before anything is written; with `adopt_by`, which says who does it, the
        job takes the code's plan where that is sound. Raises JobNotFound, JobOwned, WrongState, PlanMismatch,
        PlanNotAdopted, DataMismatch, SecretsClosed, LogError.
        """
        loaded = load(self.store, job_id)
        adopting = None if adopt_by is None else adopting_of(loaded.state, definition, adopt_by)
        vault = self.vault_for(loaded.state if adopting is None else adopted(loaded.state, adopting), definition)
        claimed, claim = claim_job(
            self.store, self.clock, self.worker_id, loaded, resume_by=resume_by, adopting=adopting
        )
        return Owned(claimed, claim, definition, vault)

    def vault_for(self, state: State, definition: AnyDefinition) -> Vault:
        """The vault of a job that this code can run, its keys at hand.

        Raises PlanMismatch or DataMismatch where the code is not what the job began with, SecretsClosed.
        """
        if found := differences(state["plan"], plan_of(definition)):
            raise PlanMismatch(state["job_id"], found)
        if state["erased"]:
            raise SecretsErased(state["job_id"], state["job_id"])
        vault = Vault(state["job_id"], self.store.data_keys)
        if definition.declares_secrets:
            vault.prepare()
        if found := misfits(state, definition, vault):
            raise DataMismatch(state["job_id"], found)
        return vault

    def first_claim(self) -> Claim:
        """The claim of a job that this worker is about to create for itself."""
        return Claim(self.worker_id, 1, self.clock.new_id())

    # --- run ---------------------------------------------------------------------------------------------------------

    async def run(self, owned: Owned) -> State:
        """Run a job this worker owns, beside its others: its state when it ended, stopped or was handed back.

        Cancelling this hands the job back. Raises OwnershipLost, and RunCancelled where somebody else cancelled the
        run: the job has no runner any more.
        """
        job_id, runner = owned.loaded.state["job_id"], self.runner(owned)
        run = self._runs[job_id] = _Run(runner, asyncio.create_task(runner.run(), name=f"job {job_id}"))
        run.task.add_done_callback(lambda _: self._forget(job_id, run))
        return await self._end_of(job_id, run)

    async def join(self, job_id: str) -> State | None:
        """Wait for the end of a run that is under way here, with whoever began it; None where there is none."""
        run = self._runs.get(job_id)
        return None if run is None else await self._end_of(job_id, run)

    async def _end_of(self, job_id: str, run: _Run) -> State:
        run.waiting += 1
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if run.waiting == 1:
                run.runner.stop(0.0)
                await _ended(run.task)
            if run.task.cancelled():
                self.takes_more = False
                if not _is_being_cancelled():
                    raise RunCancelled(job_id) from None
            elif run.task.done() and (error := run.task.exception()) is not None:
                logger.warning("job %s was not handed back: %s", job_id, error)
                self.takes_more = False
            raise
        finally:
            run.waiting -= 1

    def _forget(self, job_id: str, run: _Run) -> None:
        if self._runs.get(job_id) is run:
            del self._runs[job_id]
            self._runners.pop(job_id, None)

    def runner(self, owned: Owned) -> Runner:
        """A runner for a job this worker owns, on the running event loop."""
        runner = Runner(owned, self.store, self.outbox(), self.clock, self.settings, self._lane, self._isolation)
        self._runners[owned.loaded.state["job_id"]] = (owned.claim, runner)
        if self._stop_by is not None:
            runner.stop(self._stop_by - time.monotonic())
        return runner

    def outbox(self) -> Outbox:
        """The running event loop's way to the store; the worker's jobs all run on one loop."""
        if self._outbox is None:
            self._outbox = Outbox(self.writer)
        return self._outbox

    def stop(self, signal_number: int) -> None:
        """Hand every job back: within the grace period, at once if this was said before."""
        grace_s = self.settings.grace_s if self.stopped_by is None else 0.0
        if self.stopped_by is None and self._runners:
            logger.warning("stopping: what runs may settle for %g s; a second signal stops it at once", grace_s)
        self.stopped_by = self.stopped_by or signal_number
        self._stop_by = time.monotonic() + grace_s
        for _, runner in list(self._runners.values()):
            runner.stop(grace_s)
        self._say_stop()

    # --- live --------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Say that this worker lives, from a thread of its own: a handler that blocks the loop does not stop it."""
        while not self._ended.wait(self.settings.heartbeat_s):
            if self._outbox is not None and self._outbox.is_deserted:
                logger.warning("the event loop of worker %s was closed: its jobs are left to others", self.worker_id)
                self._retire()
                return
            try:
                beat = self.store.beat(self.worker_id, self.settings.lease_s)
            except WorkerDead as error:
                self._lose_all(str(error))
                return
            except StoreError as error:
                logger.warning("heartbeat of worker %s failed: %s", self.worker_id, error)
                continue
            if isinstance(self.clock, StoreClock):
                self.clock.set(beat.now)
            for job_id, (claim, runner) in list(self._runners.items()):
                version, epoch = beat.jobs.get(job_id, (0, claim.epoch))
                if epoch != claim.epoch:
                    runner.lose_from_thread(f"epoch {epoch} has claimed it")
                else:
                    runner.look_again_from_thread(version)

    def _lose_all(self, why: str) -> None:
        self.takes_more = False
        for _, runner in list(self._runners.values()):
            runner.lose_from_thread(why)
        self._say_stop()

    def _say_stop(self) -> None:
        for look_up in list(self.on_stop):
            look_up()


async def _ended(task: asyncio.Task[State]) -> None:
    """However often whoever waits is cancelled: that is soon, and a handler that cleans up is not to be run beside."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def adopting_of(state: State, definition: AnyDefinition, by: str) -> PlanAdopted | None:
    """The event by which the job takes the code's plan, None where that is the one it has. Raises PlanNotAdopted."""
    plan = plan_of(definition)
    found = adoption(state, plan)
    if not found.differences:
        return None
    refuse_unsound(state, plan)
    return PlanAdopted(plan=dict(plan), workflow_version=definition.version, differences=found.differences, by=by)
