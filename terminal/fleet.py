"""Batches and workers as tables and as JSON. Pure functions of what the store counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steplog.eventstore.store import BatchCount
from steplog.projections.state import ENDED, STOPPED
from steplog.terminal.look import Look
from steplog.terminal.table import table
from steplog.terminal.text import one_line

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
