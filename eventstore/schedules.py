"""What a store keeps of a schedule: that workers have it, and how far it has fired."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule of a workflow, as workers declared it last."""

    workflow: str
    name: str
    cron: str
    timezone: str
    missed: str
    seen_at: str | None = None
    """When a worker first had it: it fires for nothing before. None where it is only about to be told."""
    last_at: str | None = None
    """The latest time it has fired for."""
