"""Batches, workers and schedules as tables and as JSON. Pure functions of what the store counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steplog.eventstore.store import BatchCount
from steplog.projections.state import ENDED, STOPPED
from steplog.terminal.look import Look
from steplog.terminal.table import table
from steplog.terminal.text import one_line
from steplog.terminal.times import duration

STALLED_SHOWN_MAX = 10

_GOING_ON = ("queued", "running", "waiting", "compensating")


def goes_on(batch: BatchCount) -> bool:
    """Whether some job of the batch has not ended and waits for nobody."""
    return any(status in batch.statuses for status in _GOING_ON)


def batch_line(batch: BatchCount) -> str:
    """How far the batch is, in one line."""
    jobs = sum(batch.statuses.values())
    return f"{sum(batch.statuses.get(status, 0) for status in ENDED)}/{jobs} ended: {_said(batch)}"


def batches_table(batches: Sequence[BatchCount], now: str, look: Look) -> list[str]:
    """A line a batch."""
    headings = ("batch", "created", "jobs", "done", "failed", "running", "status")
    return [look.fit(line) for line in table(headings, [_row(batch, now, look) for batch in batches], look)]


def batch_document(batch: BatchCount) -> dict[str, Any]:
    """The batch as JSON shows it: `done` counts jobs that ended, `failed` those that wait for a person."""
    return {"batch_id": batch.batch_id, "created_at": batch.created_at, **_counts(batch), "statuses": batch.statuses}


def _row(batch: BatchCount, now: str, look: Look) -> list[str]:
    counts = _counts(batch)
    numbers = [str(counts[name]) for name in ("jobs", "done", "failed", "running")]
    return [one_line(batch.batch_id), look.when(batch.created_at, now), *numbers, _said(batch)]


def _counts(batch: BatchCount) -> dict[str, int]:
    done = sum(batch.statuses.get(status, 0) for status in ENDED)
    failed = sum(batch.statuses.get(status, 0) for status in STOPPED)
    jobs = sum(batch.statuses.values())
    return {"jobs": jobs, "done": done, "failed": failed, "running": jobs - done - failed}


def _said(batch: BatchCount) -> str:
    return ", ".join(f"{jobs} {status}" for status, jobs in sorted(batch.statuses.items()))


# --- workers ---------------------------------------------------------------------------------------------------------


def fleet_lines(fleet: Mapping[str, Any], command: Callable[[str], str], look: Look) -> list[str]:
    """A line a worker, then what stands still and what helps; `fleet` as the engine documents it."""
    headings = ("worker", "status", "jobs", "host", "pid", "since", "lease until")
    rows = [_worker_row(each, fleet["now"], look) for each in fleet["workers"]]
    return [*(look.fit(line) for line in table(headings, rows, look)), *fleet_notes(fleet, command)]


def fleet_notes(fleet: Mapping[str, Any], command: Callable[[str], str]) -> list[str]:
    """How many workers live, how long the oldest job waits, and each job that stands still with what helps."""
    live = sum(each["state"] == "alive" for each in fleet["workers"])
    notes = [f"{live} {'worker lives' if live == 1 else 'workers live'}"]
    if (ready := fleet["oldest_ready"]) is not None:
        notes.append(f"the oldest ready job has waited {duration(ready['seconds'])}: {ready['job_id']}")
    for each in fleet["stalled"][:STALLED_SHOWN_MAX]:
        helps = f"resume {each['job_id']}" if each["next_step"] == "resume" else "worker MODULE"
        notes.append(f"job {each['job_id']} stands still: {one_line(each['why'])}; `{command(helps)}`")
    if (more := len(fleet["stalled"]) - STALLED_SHOWN_MAX) > 0:
        notes.append(f"{more} more stand still; `{command('resume --all-stalled')}`")
    return notes


def _worker_row(worker: Mapping[str, Any], now: str, look: Look) -> list[str]:
    lease = look.when(worker["expires_at"], now) if worker["expires_at"] and worker["state"] == "alive" else ""
    host, since = one_line(worker["host"]), look.when(worker["started_at"], now)
    return [worker["worker_id"], worker["state"], str(worker["jobs"]), host, str(worker["pid"]), since, lease]


# --- schedules -------------------------------------------------------------------------------------------------------


def schedules_table(schedules: Sequence[Mapping[str, Any]], now: str, look: Look) -> list[str]:
    """A line a schedule, as the engine documents it."""
    headings = ("workflow", "schedule", "cron", "zone", "missed", "last", "next")
    rows = []
    for each in schedules:
        name = "" if each["name"] == each["cron"] else one_line(each["name"])
        last, coming = (look.when(at, now) if at else "" for at in (each["last_at"], each["next_at"]))
        rows.append([one_line(each["workflow"]), name, each["cron"], each["timezone"], each["missed"], last, coming])
    return [look.fit(line) for line in table(headings, rows, look)]
