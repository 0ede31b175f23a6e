"""The runner: keeps projections up to the log, from the feed, with a look at all jobs now and then as a safety net."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.projected import Document
from steplog.eventstore.store import Store
from steplog.projections.following import STRETCH_ENTRIES, Follower, Late, next_name
from steplog.projections.projecting import GROUPS_BEGIN, Projection, is_group
from steplog.projections.report_table import ReportTable
from steplog.projections.statistics import Statistics, SubStepStatistics, statistics_of

POLL_S = 0.25
SWEEP_EVERY_S = 600.0
_UNAVAILABLE_WAIT_S = 1.0


_log = logging.getLogger("steplog.projections")


def own_projections(table: str | None = None) -> list[Projection]:
    """Those that steplog itself keeps; `table` is a page's own in place of ours."""
    return [Statistics(), ReportTable(table)]


class ProjectionRunner:
    """Keeps projections of one store current. Any number of processes may do so: one works, the others come late."""

    def __init__(
        self,
        store: Store,
        projections: Sequence[Projection] | None = None,
        *,
        poll_s: float = POLL_S,
        sweep_every_s: float = SWEEP_EVERY_S,
    ) -> None:
        self._followers = [Follower(store, projection) for projection in projections or own_projections()]
        self._poll_s = poll_s
        self._sweep_every_s = sweep_every_s
        self._swept_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set. What the store cannot do now is tried again; what a job breaks puts it aside."""
        while not stop.is_set():
            try:
                rest_s = 0.0 if self._turn() else self._poll_s
            except StoreUnavailable as error:
                _log.warning("%s; the projections are kept again once it can be reached", error)
                rest_s = _UNAVAILABLE_WAIT_S
            stop.wait(rest_s)

    def catch_up(self, told: Callable[[int], None] = lambda done: None) -> None:
        """Go on until nothing is left to do; `told` how many jobs and rows were written so far, after each stretch.

        Raises StoreUnavailable.
        """
        done = 0
        for follower in self._followers:
            while worked := _not_late(follower.advance):
                done += worked
                told(done)

    def lags_s(self) -> dict[str, float | None]:
        """By projection, for how many seconds the oldest event not taken in has been there; None: not built yet."""
        return {follower.projection.name: follower.lag_s() for follower in self._followers}

    def _turn(self) -> int:
        worked = sum(_not_late(follower.advance) for follower in self._followers)
        if time.monotonic() - self._swept_at >= self._sweep_every_s:
            self._swept_at = time.monotonic()
            worked += sum(_not_late(follower.sweep) for follower in self._followers)
        return worked


@contextmanager
def kept_current(store: Store, projections: Sequence[Projection] | None = None) -> Iterator[ProjectionRunner]:
    """A runner in a thread of its own for as long as the body runs: what a worker or a server does beside its work."""
    runner, stop = ProjectionRunner(store, projections), threading.Event()
    thread = threading.Thread(target=runner.run, args=(stop,), name="steplog projections", daemon=True)
    thread.start()
    try:
        yield runner
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Building:
    """How far a projection's next generation has come."""

    projection: str
    jobs: int


def rebuild(store: Store, projection: Projection) -> Iterator[Building]:
    """Build the projection anew beside the live one, and let it take that one's place; told after each stretch.

    One that was broken off goes on from where it was. Appends, runners and readers go on meanwhile. Raises
    StoreUnavailable: what was built so far stays.
    """
    follower = Follower(store, projection)
    with suppress(Late):
        follower.begin()
    jobs = 0
    while under_way := store.projected.checkpoints().get(next_name(projection.name)):
        _not_late(follower.build)
        jobs = under_way["done"]
        yield Building(projection.name, jobs)
    while store.projected.checkpoints()[projection.name]["published"] is not None:
        _not_late(follower.advance)
    yield Building(projection.name, jobs)


def read_statistics(store: Store, workflow: str | None = None) -> list[SubStepStatistics]:
    """What the runner has counted so far, by workflow, phase and sub-step; nothing where none has run."""
    found = statistics_of(_groups(store, Statistics.name))
    return [each for each in found if workflow in (None, each.workflow)]


def _groups(store: Store, name: str) -> Iterator[Document]:
    checkpoint = store.projected.checkpoints().get(name)
    after = GROUPS_BEGIN
    while checkpoint and (page := store.projected.page(name, checkpoint["generation"], after, STRETCH_ENTRIES)):
        groups = [document for document in page if is_group(document.key)]
        yield from groups
        if len(groups) < len(page):
            return
        after = page[-1].key


def _not_late(step: Callable[[], int]) -> int:
    """What the step comes to; where another process was there first there is more to do."""
    try:
        return step()
    except Late:
        return 1
