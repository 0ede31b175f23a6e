"""`ls`: heads as a table. Pure functions of the heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from steplog.eventstore.store import Head
from steplog.terminal.look import Look
from steplog.terminal.table import table
from steplog.terminal.text import one_line, shorten
from steplog.terminal.times import since

_HEADINGS = ("job", "workflow", "status", "phase", "progress", "events", "created", "took", "key", "last error")
_BAR_COLUMNS = 8
_ERROR_COLUMNS = 60


def jobs_table(
    heads: Sequence[Head], names: Mapping[str, str], stalled: Collection[str], now: str, look: Look
) -> list[str]:
    """A line a job; `names` are the ids as short as they are unique, `stalled` those whose process is gone."""
    rows = [_row(head, names[head.job_id], head.job_id in stalled, now, look) for head in heads]
    return [look.fit(line) for line in table(_HEADINGS, rows, look)]


def _row(head: Head, name: str, stalled: bool, now: str, look: Look) -> list[str]:
    columns = head.columns
    running = columns.status in ("running", "compensating")
    end = columns.ended_at or (now if running and not stalled else columns.updated_at)
    return [
        look.job(name),
        one_line(columns.workflow),
        look.status("stalled" if stalled else columns.status),
        one_line(columns.phase or ""),
        f"{look.bar(columns.done, columns.total, _BAR_COLUMNS)} {columns.done}/{columns.total}",
        str(head.version),
        look.when(columns.created_at, now),
        since(columns.created_at, end),
        one_line(columns.key or ""),
        shorten(one_line(columns.last_error or ""), _ERROR_COLUMNS) if columns.status != "completed" else "",
    ]
