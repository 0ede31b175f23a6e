"""A worker: known to the store while it lives, the owner of the jobs it claims, and gone when it closes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

from steplog.engine.decider import decide
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import DataMismatch, PlanMismatch
from steplog.engine.facts import Interrupted, Situation
from steplog.engine.fit import misfits
from steplog.engine.history import Loaded, load, position_of
from steplog.engine.plan import differences, plan_of
from steplog.engine.runner import Owned, Runner
from steplog.engine.settings import Settings
from steplog.eventstore.chain import end_of, seal
from steplog.eventstore.clock import Clock, SystemClock, seconds_between
from steplog.eventstore.errors import StoreError, WorkerDead, WrongState
from steplog.eventstore.events import Event, EventData, JobClaimed, JobResumed
from steplog.eventstore.process_identity import own_identity
from steplog.eventstore.store import Claim, Head, Proposal, Store
from steplog.eventstore.writer import Writer
from steplog.projections.evolve import Evolution, fold
from steplog.projections.head import head_of
from steplog.projections.plan import Shape
from steplog.projections.state import ENDED, STOPPED, State

logger = logging.getLogger("steplog.engine")


class Worker:
    """Claims jobs and keeps its lease on them. A context manager: entering makes it known, leaving retires it."""

    def __init__(self, store: Store, *, clock: Clock | None = None, settings: Settings | None = None) -> None:
        self.store = store
        self.settings = settings or Settings()
        self.clock: Clock = clock or SystemClock(seconds_between(SystemClock().now(), store.now()))
        self.worker_id = self.clock.new_id()
        self.writer = Writer(store)
        self.takes_more = True
        """Not once it was declared dead, or left a job without a runner: nobody may claim that one before it ends."""
        self.stopped_by: int | None = None
        """The signal that asked it to stop."""
        self._stop_by: float | None = None
        self._runners: dict[str, tuple[Claim, Runner]] = {}
        self._ended = threading.Event()
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
        self.writer.close()
        try:
            self.store.retire_worker(self.worker_id)
        except StoreError as problem:
            logger.warning("worker %s ends without saying so: %s", self.worker_id, problem)

    # --- claim -------------------------------------------------------------------------------------------------------

    def claim(self, job_id: str, definition: AnyDefinition, *, resume_by: str | None = None) -> Owned:
        """Become the job's owner, if it has none or its owner is dead; attempts in flight become interrupted.

        A job that waits for a person is claimed only with `resume_by`, which says who resumes it. The plan and what is
        recorded are compared with the code before anything is written. Raises JobNotFound, JobOwned, WrongState,
        PlanMismatch, DataMismatch, LogError.
        """
        loaded = load(self.store, job_id)
        _refuse_other_code(loaded.state, definition)
        outcome: list[Loaded] = []

        def rule(head: Head, tail: Sequence[Event], claim: Claim) -> Proposal:
            before = fold(tail, loaded.state)
            position = position_of(tail[-1]) if tail else loaded.position
            data, state = self._taking_over(before, claim, resume_by)
            events = seal(job_id, position, data, state["recorded_at"], self.clock)
            outcome[:] = [Loaded(state, end_of(events, position), loaded.stored_at)]
            return Proposal(events, head_of(state))

        claim = self.store.claim(job_id, self.worker_id, loaded.position, rule)
        return Owned(outcome[0], claim, definition)

    def first_claim(self) -> Claim:
        """The claim of a job that this worker is about to create for itself."""
        return Claim(self.worker_id, 1, self.clock.new_id())

    def _taking_over(self, state: State, claim: Claim, resume_by: str | None) -> tuple[list[EventData], State]:
        if state["status"] in ENDED or (state["status"] in STOPPED and resume_by is None):
            raise WrongState(state["job_id"], state["status"], "run it", allowed_actions(state))
        former = state["worker_id"]
        at = max(self.clock.now(), state["recorded_at"])
        data: list[EventData] = []
        if resume_by is not None and state["status"] in STOPPED:
            data.append(JobResumed(by=resume_by))
        reason = _reason(state, resumed=bool(data))
        data.append(JobClaimed(worker_id=self.worker_id, epoch=claim.epoch, claim_id=claim.claim_id, reason=reason))
        evolution = Evolution(state)
        for event in data:
            evolution.foresee(event, at)
        if former is None:
            return data, evolution.state
        quiet = Situation(stopping=True)
        decision = decide(evolution.state, Shape.of(state["plan"]), [Interrupted("owner died", former)], at, quiet)
        return [*data, *decision.events], decision.state

    # --- run ---------------------------------------------------------------------------------------------------------

    async def run(self, owned: Owned) -> State:
        """Run a job this worker owns, beside its others: its state when it ended, stopped or was handed back.

        Cancelling this hands the job back. Raises OwnershipLost.
        """
        job_id, runner = owned.loaded.state["job_id"], self.runner(owned)
        running = asyncio.create_task(runner.run(), name=f"job {job_id}")
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            runner.stop(0.0)
            await asyncio.wait({running})
            if running.done() and (error := running.exception()) is not None:
                logger.warning("job %s was not handed back: %s", job_id, error)
            raise
        finally:
            self._runners.pop(job_id, None)

    def runner(self, owned: Owned) -> Runner:
        """A runner for a job this worker owns, on the running event loop."""
        runner = Runner(owned, self.store, self.writer, self.clock, self.settings)
        self._runners[owned.loaded.state["job_id"]] = (owned.claim, runner)
        if self._stop_by is not None:
            runner.stop(self._stop_by - time.monotonic())
        return runner

    def stop(self, signal_number: int) -> None:
        """Hand every job back: within the grace period, at once if this was said before."""
        grace_s = self.settings.grace_s if self.stopped_by is None else 0.0
        if self.stopped_by is None and self._runners:
            logger.warning("stopping: what runs may settle for %g s; a second signal stops it at once", grace_s)
        self.stopped_by = self.stopped_by or signal_number
        self._stop_by = time.monotonic() + grace_s
        for _, runner in list(self._runners.values()):
            runner.stop(grace_s)

    # --- live --------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Say that this worker lives, from a thread of its own: a handler that blocks the loop does not stop it."""
        while not self._ended.wait(self.settings.heartbeat_s):
            try:
                beat = self.store.beat(self.worker_id, self.settings.lease_s)
            except WorkerDead as error:
                self._lose_all(str(error))
                return
            except StoreError as error:
                logger.warning("heartbeat of worker %s failed: %s", self.worker_id, error)
                continue
            for job_id, (claim, runner) in list(self._runners.items()):
                if job_id in beat.jobs and beat.jobs[job_id][1] != claim.epoch:
                    runner.lose_from_thread(f"epoch {beat.jobs[job_id][1]} has claimed it")

    def _lose_all(self, why: str) -> None:
        self.takes_more = False
        for _, runner in list(self._runners.values()):
            runner.lose_from_thread(why)


def _refuse_other_code(state: State, definition: AnyDefinition) -> None:
    if found := differences(state["plan"], plan_of(definition)):
        raise PlanMismatch(state["job_id"], found)
    if found := misfits(state, definition):
        raise DataMismatch(state["job_id"], found)


def _reason(state: State, *, resumed: bool) -> Literal["first", "takeover", "wake", "resume"]:
    if resumed:
        return "resume"
    if state["worker_id"] is not None:
        return "takeover"
    return "wake" if state["epoch"] else "first"


def allowed_actions(state: State) -> list[str]:
    """What a person can do with the job as it is."""
    return ["resume"] if state["status"] in STOPPED else []
