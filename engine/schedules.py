"""Schedules: a workflow's jobs at times that a cron expression names, each once across all workers.

A worker that has the workflow submits the job of each time that has come, under a key that names the time: whoever is
first, it is one job. Where no worker ran, `missed` says what is made up for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import DefinitionError
from steplog.engine.submitting import Submission, create
from steplog.eventstore.clock import Clock, instant, later
from steplog.eventstore.codec import check_name
from steplog.eventstore.errors import KeyConflict, StoreError
from steplog.eventstore.schedules import ScheduleRow
from steplog.eventstore.store import Store

logger = logging.getLogger("steplog.engine")

Missed = Literal["skip", "latest", "all"]
"""Of the times that came while no worker ran: none, the latest, or each."""

ON_TIME_S = 60.0
"""A time is not missed before it is so long ago."""
MADE_UP_MAX = 1000
"""At most so many missed times are made up for at once, the latest ones."""


@dataclass(frozen=True)
class Schedule:
    """When jobs of a workflow are submitted, and with which input."""

    name: str
    cron: str
    timezone: str
    input: Any
    missed: Missed

    def after(self, at: str) -> Iterator[str]:
        """The times after an instant, as instants, in order."""
        start = datetime.fromisoformat(at).astimezone(ZoneInfo(self.timezone))
        return (instant(moment.astimezone(UTC).timestamp()) for moment in cron_times(self.cron, start))


def schedule_of(name: str | None, cron: str, timezone: str, input: Any, missed: Missed) -> Schedule:
    """A schedule whose expression and zone are known to be good. Raises DefinitionError."""
    if missed not in ("skip", "latest", "all"):
        raise DefinitionError(f"missed={missed!r} is none of skip, latest, all")
    try:
        zone = ZoneInfo(timezone)
        next(cron_times(cron, datetime(2026, 1, 1, tzinfo=zone)))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise DefinitionError(f"schedule {cron!r} in {timezone!r}: {error}") from None
    except StopIteration:
        raise DefinitionError(f"schedule {cron!r} never comes") from None
    return Schedule(check_name(name or cron, "schedule"), cron, timezone, input, missed)


def cron_times(cron: str, start: datetime) -> Iterator[datetime]:
    """The times after `start`, in its zone. Raises ValueError for what is no cron expression."""
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise DefinitionError("schedules need a cron parser: pip install 'steplog[cron]'") from None
    try:
        return iter(CronSim(cron, start))
    except CronSimError as error:
        raise ValueError(f"no cron expression: {error}") from None


def due_times(schedule: Schedule, since: str, now: str) -> list[str]:
    """The times to fire for: those after `since` up to `now`, less what the schedule does not make up for."""
    came: list[str] = []
    for at in schedule.after(since):
        if at > now:
            break
        came.append(at)
    if schedule.missed == "skip":
        return [at for at in came if at > later(now, -ON_TIME_S)]
    return came[-1:] if schedule.missed == "latest" else came[-MADE_UP_MAX:]


class Firing:
    """The schedules of one worker's workflows."""

    def __init__(self, store: Store, clock: Clock, definitions: Iterable[AnyDefinition]) -> None:
        self._store = store
        self._clock = clock
        self._schedules = [(definition, schedule) for definition in definitions for schedule in definition.schedules]
        self._since: dict[tuple[str, str], str] = {}
        self._next: dict[tuple[str, str], str | None] = {}

    @property
    def next_at(self) -> str | None:
        """When the next of them comes."""
        return min((at for at in self._next.values() if at is not None), default=None)

    def fire(self) -> None:
        """Submit the job of each time that has come. Raises StoreError; what was not submitted is, the next time.

        A schedule that cannot be submitted is told of in the log, and tried again when its next time comes.
        """
        now = self._clock.now()
        for definition, schedule in self._schedules:
            of = definition.name, schedule.name
            if of not in self._since:
                self._since[of] = self._begun(definition, schedule)
            elif (next_at := self._next[of]) is None or next_at > now:
                continue
            self._next[of] = next(schedule.after(now), None)
            try:
                for at in due_times(schedule, self._since[of], now):
                    self._submit(definition, schedule, at)
            except StoreError:
                self._next[of] = now
                raise
            except Exception as error:  # of its input: what it is refused for here another worker may have the keys for
                logger.error("schedule %s of %s cannot be fired here: %s", schedule.name, definition.name, error)
            else:
                self._since[of] = now

    def _begun(self, definition: AnyDefinition, schedule: Schedule) -> str:
        told = ScheduleRow(definition.name, schedule.name, schedule.cron, schedule.timezone, schedule.missed)
        known = self._store.see_schedule(told)
        return known.last_at or known.seen_at or self._clock.now()

    def _submit(self, definition: AnyDefinition, schedule: Schedule, at: str) -> None:
        submission = Submission(
            schedule.input,
            key=f"{schedule.name} at {at}",
            run_at=datetime.fromisoformat(at),
            tags={"schedule": schedule.name},
        )
        try:
            job_id = create(self._store, definition, submission, self._clock).job_id
            logger.info("schedule %s of %s fired for %s: job %s", schedule.name, definition.name, at, job_id)
        except KeyConflict as error:
            logger.warning("schedule %s was fired by a worker that has another input: %s", schedule.name, error)
        self._store.schedule_fired(definition.name, schedule.name, at)


def schedule_document(schedule: ScheduleRow, now: str) -> dict[str, Any]:
    """A schedule as JSON shows it; `next_at` is null where no cron parser is installed."""
    try:
        declared = schedule_of(schedule.name, schedule.cron, schedule.timezone, None, "latest")
        next_at = next(declared.after(now), None)
    except DefinitionError:
        next_at = None
    return {**asdict(schedule), "next_at": next_at}
