"""The table of schedules in PostgreSQL."""

from __future__ import annotations

from steplog.eventstore.postgres_connections import Run
from steplog.eventstore.schedules import ScheduleRow

_SEE = """
insert into {s}.schedules (workflow, name, cron, timezone, missed) values (%s, %s, %s, %s, %s)
on conflict (workflow, name) do update set cron = excluded.cron, timezone = excluded.timezone, missed = excluded.missed
returning workflow, name, cron, timezone, missed, {s}.instant(seen_at), {s}.instant(last_at)
"""

_FIRED = """
update {s}.schedules set last_at = %s
where workflow = %s and name = %s and (last_at is null or last_at < %s)
"""

_SCHEDULES = """
select workflow, name, cron, timezone, missed, {s}.instant(seen_at), {s}.instant(last_at) from {s}.schedules
order by workflow, name
"""


def see(run: Run, schedule: ScheduleRow) -> ScheduleRow:
    parameters = [schedule.workflow, schedule.name, schedule.cron, schedule.timezone, schedule.missed]
    return ScheduleRow(*run(_SEE, parameters)[0])


def fired(run: Run, workflow: str, name: str, at: str) -> None:
    run(_FIRED, [at, workflow, name, at])


def list_schedules(run: Run) -> list[ScheduleRow]:
    return [ScheduleRow(*row) for row in run(_SCHEDULES, [])]
