"""How the job's context changes, and who is remembered to have written what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from steplog.eventstore.events import Event
from steplog.projections.plan import place_of
from steplog.projections.state import State

OPERATOR = ""
"""The writer of context fields that no sub-step wrote."""

UNSET: Final = object()
"""What a field that was unset has for a value."""


def write_context(state: State, data: dict[str, Any], by: tuple[str, int] | None) -> None:
    """Set and unset fields; `by` is the writer and the version, None where earlier values come back."""
    state["context"].update(data.get("set", {}))
    for name in data.get("unset", []):
        state["context"].pop(name, None)
    if by is not None:
        for name in (*data.get("set", {}), *data.get("unset", [])):
            state["writers"].setdefault(name, {})[by[0]] = by[1]


def writer_of(data: dict[str, Any]) -> str:
    """Who an event says wrote: a sub-step or an item of one, by its place, or a person."""
    return place_of(data["phase"], data["sub_step"], data.get("item")) if "sub_step" in data else OPERATOR


def writes_of(event: Event) -> Iterator[tuple[str, str, Any]]:
    """What an event writes to the context: field, writer and value, or UNSET."""
    data = event.data
    if event.type in ("JobCreated", "JobForked"):
        yield from ((name, OPERATOR, value) for name, value in data.get("context", {}).items())
    elif event.type == "ContextChanged":
        yield from ((name, writer_of(data), value) for name, value in data.get("set", {}).items())
        yield from ((name, writer_of(data), UNSET) for name in data.get("unset", []))
    elif event.type == "SubStepInherited":
        writer = writer_of(data)
        yield from ((name, writer, value) for name, value in data.get("context_written", {}).items())
