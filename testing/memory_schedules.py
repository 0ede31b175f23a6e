"""Schedules in memory, as a store keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from steplog.eventstore.schedules import ScheduleRow


class SchedulesInMemory:
    """What a store remembers of schedules."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._now = now
        self._schedules: dict[tuple[str, str], ScheduleRow] = {}
        self._schedules_lock = threading.Lock()

    def see_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        name = (schedule.workflow, schedule.name)
        with self._schedules_lock:
            known = self._schedules.get(name)
            seen_at, last_at = (known.seen_at, known.last_at) if known else (self._now(), None)
            self._schedules[name] = replace(schedule, seen_at=seen_at, last_at=last_at)
            return self._schedules[name]

    def schedule_fired(self, workflow: str, name: str, at: str) -> None:
        with self._schedules_lock:
            known = self._schedules.get((workflow, name))
            if known and (known.last_at is None or known.last_at < at):
                self._schedules[workflow, name] = replace(known, last_at=at)

    def schedules(self) -> list[ScheduleRow]:
        with self._schedules_lock:
            return [self._schedules[name] for name in sorted(self._schedules)]
