"""The table of schedules in SQLite."""

from __future__ import annotations

import sqlite3

from steplog.eventstore.schedules import ScheduleRow

_SEE = """
INSERT INTO schedules (workflow, name, cron, timezone, missed, seen_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (workflow, name)
DO UPDATE SET cron = excluded.cron, timezone = excluded.timezone, missed = excluded.missed
RETURNING workflow, name, cron, timezone, missed, seen_at, last_at
"""

_FIRED = """
UPDATE schedules SET last_at = ? WHERE workflow = ? AND name = ? AND (last_at IS NULL OR last_at < ?)
"""

_SCHEDULES = """
SELECT workflow, name, cron, timezone, missed, seen_at, last_at FROM schedules ORDER BY workflow, name
"""


def see(connection: sqlite3.Connection, schedule: ScheduleRow, now: str) -> ScheduleRow:
    parameters = (schedule.workflow, schedule.name, schedule.cron, schedule.timezone, schedule.missed, now)
    ((*row,),) = connection.execute(_SEE, parameters).fetchall()
    return ScheduleRow(*row)


def fired(connection: sqlite3.Connection, workflow: str, name: str, at: str) -> None:
    connection.execute(_FIRED, (at, workflow, name, at))


def list_schedules(connection: sqlite3.Connection) -> list[ScheduleRow]:
    return [ScheduleRow(*row) for row in connection.execute(_SCHEDULES)]
