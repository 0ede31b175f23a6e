"""A worker of a fleet: it looks for jobs, claims as many as it has room for, and runs them, until it is told to stop.

    look -> read, fold, compare with the code -> claim -> run; wait for a job to end, a hint, a due time, or the poll

What it cannot run it leaves to others and remembers. Looking again and again is what correctness rests on: a hint only
cuts the wait short.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest

from steplog.engine.blocking import run_to_the_end
from steplog.engine.claiming import claim_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import OwnershipLost, PlanMismatch, SecretsClosed
from steplog.engine.history import Loaded, load, position_of
from steplog.engine.runner import Owned
from steplog.engine.schedules import Firing
from steplog.engine.settings import Settings
from steplog.engine.shared import worker_for
from steplog.engine.threads import at_once
from steplog.engine.worker import Worker
from steplog.eventstore.clock import seconds_between
from steplog.eventstore.errors import (
    JobNotFound,
    JobOwned,
    LogError,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    WorkerDead,
    WrongState,
)
from steplog.eventstore.events import Event
from steplog.eventstore.store import Append, Code, Head, HeadColumns, SlotWanted, Store, Work, WorkQuery
from steplog.projections.evolve import fold

logger = logging.getLogger("steplog.engine")

CONCURRENCY = 10
"""How many jobs one worker runs at once, unless told otherwise."""
POLL_GROWTH = 1.5
AWAY_S_MAX = 15.0
"""The longest wait between two looks while the store is away."""
REFUSED_AGAIN_S = 30.0
"""How long a worker leaves a job alone whose run broke off."""
HINTED_WITHIN_S = 0.02
"""Workers that hear one hint look for work spread over so long."""
HINT_S = 5.0
BESIDE_S_MAX = 10.0
"""How long what runs beside the jobs may take to stop."""

Beside = Callable[[threading.Event], None]
"""What runs until the event is set."""

_LEFT_TO_OTHERS = (PlanMismatch, SecretsClosed, LogError, WrongState)
"""Why a worker does not run a job that another may."""

SHORT_LOG = 100
"""Logs of so many events are read together and whole; longer ones each from their stored state on."""
WINDOW_MAX = 512


def run_worker(
    *workflows: AnyDefinition,
    store: Store | str | None = None,
    concurrency: int = CONCURRENCY,
    one_shot: bool = False,
    settings: Settings | None = None,
    beside: Sequence[Beside] = (),
) -> int | None:
    """Claim and run jobs of these workflows, `concurrency` at once, until SIGINT or SIGTERM: returns the signal.

    The first signal lets what runs settle within the grace period and hands the jobs back, a second one does so at
    once. With `one_shot` it ends when no job is due. Jobs that only wait are given back, and any worker takes them up
    when they are due. What is given as `beside` runs in threads meanwhile: `Notifier(store, targets).run`, say. Raises
    WorkerDead once this worker was declared dead: it has stopped then.
    """
    serving = arun_worker(
        *workflows, store=store, concurrency=concurrency, one_shot=one_shot, settings=settings, beside=beside
    )
    return run_to_the_end(serving, grace_s=(settings or Settings()).grace_s)


async def arun_worker(
    *workflows: AnyDefinition,
    store: Store | str | None = None,
    concurrency: int = CONCURRENCY,
    one_shot: bool = False,
    settings: Settings | None = None,
    beside: Sequence[Beside] = (),
) -> int | None:
    """`run_worker` for use inside a running event loop; cancelling it hands the jobs back."""
    async with worker_for(store, settings) as worker:
        with _beside(beside):
            await Serving(worker, workflows, concurrency, one_shot).run()
        return worker.stopped_by


@contextmanager
def _beside(running: Sequence[Beside]) -> Iterator[None]:
    """Run each in a thread of its own, and tell it to stop at the end."""
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(stop,), name="steplog-beside", daemon=True) for run in running]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(BESIDE_S_MAX)


@dataclass(frozen=True, slots=True)
class _Refusal:
    version: int
    until: float
    """By the monotonic clock; what the code does not fit is left alone until the job changes."""


class Serving:
    """One worker's loop: made and run in the event loop that its jobs run in."""

    def __init__(self, worker: Worker, definitions: Sequence[AnyDefinition], concurrency: int, one_shot: bool) -> None:
        self._worker = worker
        self._definitions = {definition.name: definition for definition in definitions}
        self._firing = Firing(worker.store, worker.clock, definitions)
        self._concurrency = concurrency
        self._one_shot = one_shot
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._hinted = False
        self._running: set[asyncio.Task[None]] = set()
        self._refused: dict[str, _Refusal] = {}
        self._is_limited = any(definition.limits for definition in definitions)
        self._used_up: dict[str, tuple[str, Mapping[str, str]]] = {}
        """By limit that has no slot left as of this look, the workflow and tags of the jobs that it counts."""
        self._turn = random.randrange(1 << 16)
        """Which workflow is served first; it moves on with every look."""
        self._spread = 1
        """How many times as many jobs are looked at as there is room for: it grows where others claim the same."""
        self._ended = threading.Event()

    def wake(self) -> None:
        """Let the loop look again; from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nothing waits any more
            self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Until the worker is told to stop, or, with `one_shot`, nothing is due: what ran has then settled.

        Raises WorkerDead once it was declared dead: its jobs may run elsewhere.
        """
        listening = threading.Thread(target=self._listen, name="steplog-hints", daemon=True)
        listening.start()
        self._worker.on_stop.append(self.wake)
        try:
            await self._serve()
            while self._running:
                await asyncio.wait(self._running)
        finally:
            self._worker.on_stop.remove(self.wake)
            self._ended.set()
            await self._end_what_runs()
        if not self._worker.takes_more:
            raise WorkerDead(self._worker.worker_id)

    async def _serve(self) -> None:
        settings, wait_s, away_s = self._worker.settings, self._worker.settings.poll_s, 0.0
        while self._goes_on():
            self._woken.clear()
            room, found, claimed = self._concurrency - len(self._running), None, 0
            if room:
                try:
                    found, owned = await self._looked_and_claimed(room)
                except StoreDamaged:
                    raise
                except WorkerDead:
                    self._worker.takes_more = False
                    return
                except StoreUnavailable as error:
                    away_s = min(AWAY_S_MAX, 2 * away_s or settings.poll_s / 2)
                    logger.warning("work cannot be looked for, again in %.1f s at most: %s", away_s, error)
                    await self._wait(random.uniform(away_s / 2, away_s), deaf=True)
                    continue
                away_s = 0.0
                for job in owned:
                    self._start(job)
                claimed = len(owned)
            if self._one_shot and not self._running and not claimed:
                return
            if claimed and len(self._running) < self._concurrency:
                wait_s = settings.poll_s
                continue
            await self._wait(self._patience_s(found, wait_s))
            wait_s = settings.poll_s if claimed or self._hinted else min(settings.poll_s_max, wait_s * POLL_GROWTH)
            if self._hinted:
                self._hinted = False
                await asyncio.sleep(random.uniform(0, HINTED_WITHIN_S))

    async def _looked_and_claimed(self, room: int) -> tuple[Work, list[Owned]]:
        """Where this is cancelled meanwhile, what is claimed all the same is given up."""
        looking = at_once(self._look_and_claim, room)
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            await asyncio.wait({looking})
            if looking.exception() is None:
                for owned in looking.result()[1]:
                    await at_once(self._give_up, owned)
            raise

    def _goes_on(self) -> bool:
        return self._worker.stopped_by is None and self._worker.takes_more

    def _patience_s(self, found: Work | None, wait_s: float) -> float:
        """Until the next look: as the poll says, or when the next job falls due; each time a little different."""
        waits = [wait_s * random.uniform(0.9, 1.1)]
        if found is not None and found.next_at is not None:
            waits.append(max(0.01, seconds_between(found.now, found.next_at)))
        if (fires_at := self._firing.next_at) is not None:
            waits.append(max(0.01, seconds_between(self._worker.clock.now(), fires_at)))
        return min(waits)

    async def _wait(self, timeout_s: float, *, deaf: bool = False) -> None:
        """For a wake-up or for so long; where the store is away only what stops the worker counts."""
        until = time.monotonic() + timeout_s
        while self._goes_on() and (left_s := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left_s):  # wait_for would lose a cancellation that meets a wake-up
                    await self._woken.wait()
            except TimeoutError:
                return
            if not deaf:
                return
            self._woken.clear()

    # --- find and claim, in a thread ---------------------------------------------------------------------------------

    def _look_and_claim(self, room: int) -> tuple[Work, list[Owned]]:
        """What was found, and what of it this worker owns now; beyond what it refuses it looks again."""
        self._used_up.clear()
        while True:
            known = len(self._refused) + len(self._used_up)
            found, owned = self._look_once(room)
            if owned or len(self._refused) + len(self._used_up) <= known:
                return found, owned

    def _look_once(self, room: int) -> tuple[Work, list[Owned]]:
        worker, now = self._worker, time.monotonic()
        self._firing.fire()
        for job_id, refusal in list(self._refused.items()):
            if refusal.until <= now:
                del self._refused[job_id]
        refused = {job_id: refusal.version for job_id, refusal in list(self._refused.items())}
        limit = min(WINDOW_MAX, max(room, room * self._spread))
        query = WorkQuery(list(self._definitions), limit, refused, list(self._used_up.values()))
        found = worker.store.look_for_work(query)
        if self._ended.is_set():  # what is found by now may be what this worker has just handed back
            return found, []
        owned: list[Owned] = []
        for head in random.sample(found.left_behind, len(found.left_behind)):
            if len(owned) >= room:
                break
            owned += self._take_over(head)
        due = [head for head in found.due if not self._is_refused(head)]
        owned += self._claim_due(_one_of_each(self._shuffled(due), self._turn), room - len(owned))
        self._turn += 1
        return found, owned

    def _is_refused(self, head: Head) -> bool:
        """A run may have broken off, and its job been given up, since work was asked for."""
        refusal = self._refused.get(head.job_id)
        return refusal is not None and refusal.version == head.version

    def _shuffled(self, due: Sequence[Head]) -> list[Head]:
        """Jobs of the same priority in any order, where other workers are after them too."""
        if self._spread == 1:
            return list(due)
        place = {head.job_id: random.random() for head in due}
        return sorted(due, key=lambda head: (-head.columns.priority, place[head.job_id]))

    def _claim_due(self, heads: Iterator[Head], room: int) -> list[Owned]:
        """The first that can be run here, claimed in one go."""
        wanted: list[tuple[Owned, Append]] = []
        while len(wanted) < room and (next_ones := list(islice(heads, room - len(wanted)))):
            wanted += self._prepared(next_ones)
        if not wanted:
            return []
        slots = {item.job_id: self._slots_of(item) for _, item in wanted} if self._is_limited else {}
        answers = self._worker.store.claim_many([item for _, item in wanted], slots)
        won, lost = [], 0
        for (owned, item), answer in zip(wanted, answers, strict=True):
            if answer.code is Code.STORED:
                won.append(owned)
            elif answer.code is Code.LIMITED and answer.limit is not None:
                self._used_up[answer.limit] = self._held_up_by(answer.limit, item.columns)
            else:
                lost += 1
        self._spread = min(16, self._spread * 2) if 2 * lost > len(wanted) else max(1, self._spread - (not lost))
        return won

    def _slots_of(self, item: Append) -> list[SlotWanted]:
        """What the claim takes of the workflow's limits."""
        limits = self._definitions[item.columns.workflow].limits
        wanted = (limit.slot_for(item.columns, is_first=item.claim.epoch == 1) for limit in limits)
        return [slot for slot in wanted if slot is not None]

    def _held_up_by(self, name: str, columns: HeadColumns) -> tuple[str, Mapping[str, str]]:
        """The workflow and tags of jobs that the limit of that name counts."""
        for limit in self._definitions[columns.workflow].limits:
            slot = limit.slot_for(columns, is_first=True)
            if slot is not None and slot.limit == name:
                return columns.workflow, limit.tags_of(columns) or {}
        return columns.workflow, columns.tags

    def _prepared(self, heads: Sequence[Head]) -> list[tuple[Owned, Append]]:
        """The claims of those that can be run here; the others are refused."""
        short = [head for head in heads if head.version <= SHORT_LOG]
        logs = self._worker.store.read_heads(short)
        prepared = []
        for head in heads:
            definition = self._definitions[head.columns.workflow]
            try:
                loaded = self._loaded(head, logs.get(head.job_id))
                if loaded.position != head.position:
                    continue  # somebody was faster
                vault = self._worker.vault_for(loaded.state, definition)
                claimed, item = claim_of(self._worker.clock, self._worker.worker_id, loaded, head.epoch)
            except _LEFT_TO_OTHERS as error:
                self._refuse(head, error)
            except StoreError:
                raise
            except Exception as error:  # of the code's own types, say: one job must not keep the worker from all others
                self._refuse(head, error)
            else:
                prepared.append((Owned(claimed, item.claim, definition, vault, may_release=True), item))
        return prepared

    def _loaded(self, head: Head, log: list[Event] | LogError | None) -> Loaded:
        if isinstance(log, LogError):
            raise log
        return load(self._worker.store, head.job_id) if log is None else Loaded(fold(log), position_of(log[-1]))

    def _take_over(self, head: Head) -> list[Owned]:
        """A job of a dead worker; empty where it lives after all, or another was faster."""
        try:
            owned = self._worker.claim(head.job_id, self._definitions[head.columns.workflow])
        except (JobOwned, JobNotFound):
            return []
        except _LEFT_TO_OTHERS as error:
            self._refuse(head, error)
            return []
        except StoreError:
            raise
        except Exception as error:  # as above
            self._refuse(head, error)
            return []
        logger.warning("job %s is taken over from worker %s", head.job_id, head.worker_id)
        return [replace(owned, may_release=True)]

    def _refuse(self, head: Head, error: Exception) -> None:
        logger.warning("job %s is left to other workers: %s", head.job_id, error)
        self._refused[head.job_id] = _Refusal(head.version, float("inf"))

    # --- run ---------------------------------------------------------------------------------------------------------

    def _start(self, owned: Owned) -> None:
        running = asyncio.create_task(self._run(owned), name=f"job {owned.loaded.state['job_id']}")
        self._running.add(running)
        running.add_done_callback(self._ended_one)

    def _ended_one(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self._woken.set()

    async def _run(self, owned: Owned) -> None:
        """Run the job to where it ends, stops or is given back. A run that breaks off leaves it to whoever finds it."""
        job_id = owned.loaded.state["job_id"]
        try:
            await self._worker.run(owned)
        except OwnershipLost as error:
            logger.warning("%s", error)
        except Exception as error:
            logger.error("the run of job %s broke off, others may take it up: %s", job_id, error, exc_info=error)
            await at_once(self._give_up, owned)

    def _give_up(self, owned: Owned) -> None:
        job_id = owned.loaded.state["job_id"]
        try:
            head = self._worker.store.head(job_id)
            self._refused[job_id] = _Refusal(head.version, time.monotonic() + REFUSED_AGAIN_S)
            self._worker.store.abandon(job_id, owned.claim)
        except Exception as error:
            # Nobody may claim it while this worker lives, so the worker ends as soon as it can.
            logger.error("job %s cannot be given up, so this worker ends: %s", job_id, error)
            self._worker.takes_more = False
            self.wake()

    # --- hints -------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """In a thread of its own."""
        while not self._ended.is_set():
            try:
                hinted = self._worker.store.await_hint(HINT_S)
            except StoreUnavailable as error:
                logger.debug("no hints are heard: %s", error)
                self._ended.wait(HINT_S)
                continue
            if hinted:
                self._hinted = True
                self.wake()

    async def _end_what_runs(self) -> None:
        """Hand back what still runs where this was cancelled, and tell others that it waits for them."""
        left = set(self._running)
        for running in left:
            running.cancel()
        if left:
            await asyncio.wait(left)
        if left or self._worker.stopped_by is not None:
            await at_once(self._worker.store.hint)


def _one_of_each(due: Sequence[Head], turn: int) -> Iterator[Head]:
    """The jobs in turns of their workflows: one of each, then the next of each."""
    of_workflow: dict[str, list[Head]] = {}
    for head in due:
        of_workflow.setdefault(head.columns.workflow, []).append(head)
    queues = list(of_workflow.values())
    first = turn % len(queues) if queues else 0
    rounds = zip_longest(*queues[first:], *queues[:first])
    return (head for head in chain.from_iterable(rounds) if head is not None)
