"""A job's row, an event, items of a fan-out as JSON: what command line and status API both show. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steplog.eventstore.events import Event
from steplog.eventstore.store import Head
from steplog.projections.fan_out import Item


def head_document(head: Head) -> dict[str, Any]:
    """The head as JSON shows it."""
    columns = head.columns._asdict()
    progress = {"done": columns.pop("done"), "total": columns.pop("total")}
    document = {"job_id": head.job_id, "version": head.version, **columns, "progress": progress}
    return {**document, "worker_id": head.worker_id, "epoch": head.epoch}


def event_document(event: Event) -> dict[str, Any]:
    """The event as JSON shows it."""
    return event._asdict()


def items_document(items: Sequence[Item], next_cursor: str | None) -> dict[str, Any]:
    """A page of them."""
    return {"items": [item_document(item) for item in items], "next_cursor": next_cursor}


def item_document(item: Item) -> dict[str, Any]:
    """One as JSON shows it."""
    state = item.state
    return {
        "item": item.key,
        "input": item.input,
        "status": state["status"],
        "attempts": state["attempts"],
        "generation": state["generation"],
        "seconds": state["seconds"],
        "result": state["result"],
        "error": state["error"],
        "reason": state["reason"],
        "retry_at": state["retry_at"],
        "started_version": state["started_version"],
    }
