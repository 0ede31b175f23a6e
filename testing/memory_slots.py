"""Slots of fleet-wide limits in memory, as a store keeps them."""

from __future__ import annotations

from collections.abc import Callable

from steplog.eventstore.clock import later
from steplog.eventstore.store import SlotWanted


class SlotsInMemory:
    """Who took each slot; used inside the store's lock."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], tuple[str, str]] = {}
        """By limit and slot, the job that took it last and when."""

    def take(self, wanted: SlotWanted, job_id: str, now: str, is_owned: Callable[[str], bool]) -> bool:
        """Whether the job got one: of a rate, one not taken within its period; else one whose job nobody runs."""
        before = [slot for slot in range(wanted.slots) if self._taken.get((wanted.limit, slot), ("",))[0] == job_id]
        for slot in (*before, *range(wanted.slots)):
            holder, taken_at = self._taken.get((wanted.limit, slot), ("", ""))
            if wanted.period_s is not None:
                used = taken_at > later(now, -wanted.period_s)
            else:
                used = holder not in ("", job_id) and is_owned(holder)
            if not used:
                self._taken[wanted.limit, slot] = (job_id, now)
                return True
        return False
