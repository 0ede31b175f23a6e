"""A job's row and an event as JSON: what the command line and the status API both show. Pure functions."""

from __future__ import annotations

from typing import Any

from steplog.eventstore.events import Event
from steplog.eventstore.store import Head


def head_document(head: Head) -> dict[str, Any]:
    """The head as JSON shows it."""
    columns = head.columns._asdict()
    progress = {"done": columns.pop("done"), "total": columns.pop("total")}
    document = {"job_id": head.job_id, "version": head.version, **columns, "progress": progress}
    return {**document, "worker_id": head.worker_id, "epoch": head.epoch}


def event_document(event: Event) -> dict[str, Any]:
    """The event as JSON shows it."""
    return event._asdict()
