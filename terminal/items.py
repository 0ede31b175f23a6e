"""The items of a fan-out, a page of them, as lines. Pure functions of the state."""

from __future__ import annotations

from collections.abc import Iterable

from steplog.projections.fan_out import Item
from steplog.terminal.look import Look
from steplog.terminal.table import table
from steplog.terminal.text import one_line, short
from steplog.terminal.times import duration
from steplog.terminal.tree import error_line

HEADINGS = ("item", "status", "attempts", "took", "said")


def item_lines(items: Iterable[Item], look: Look) -> list[str]:
    """One line an item: how it stands, and what it came to."""
    rows = [
        (
            one_line(item.key),
            look.status(item.state["status"]),
            str(item.state["attempts"] or ""),
            "" if item.state["seconds"] is None else duration(item.state["seconds"]),
            _said(item),
        )
        for item in items
    ]
    return [look.fit(line) for line in table(HEADINGS, rows, look)]


def _said(item: Item) -> str:
    state = item.state
    if state["status"] == "completed":
        return short(state["result"]) if state["result"] is not None else ""
    return error_line(state["error"]) or one_line(state["reason"] or "")
