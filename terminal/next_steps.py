"""`resume-point`: what would run next, and why, as lines. A pure function of the resume point."""

from __future__ import annotations

from typing import Any

from steplog.terminal.look import Look
from steplog.terminal.table import GAP, facts
from steplog.terminal.text import one_line, pad, short, width
from steplog.terminal.tree import View, header


def resume_point_lines(point: dict[str, Any], view: View) -> list[str]:
    """The job, what runs next, what waits and for what, and what is settled already."""
    look, now = view.look, view.now
    said = [
        *_pairs("run", [(entry["sub_step"], _why(entry, now, look)) for entry in point["run"]], look),
        *_pairs("waiting", [(entry["sub_step"], f"for {one_line(entry['for'])}") for entry in point["waiting"]], look),
    ]
    settled = [(kind, _counted(point[kind])) for kind in ("failed", "skipped", "done")]
    lines = [header(view), *(said or ["nothing would run"]), *facts(settled, look)]
    context = [f"{GAP}{line}" for line in context_lines(point["context"], look)]
    return [look.fit(line) for line in [*lines, *([look.dim("context"), *context] if context else [])]]


def context_lines(context: dict[str, Any], look: Look) -> list[str]:
    """A field of the context a line."""
    return [
        look.fit(line) for line in facts([(one_line(name), short(value, 80)) for name, value in context.items()], look)
    ]


def _why(entry: dict[str, Any], now: str, look: Look) -> str:
    not_before = entry["not_before"]
    due = f", not before {look.when(not_before, now)}" if not_before and not_before > now else ""
    return f"attempt {entry['attempt']}: {one_line(entry['because'])}{due}"


def _pairs(heading: str, entries: list[tuple[str, str]], look: Look) -> list[str]:
    columns = max((width(one_line(key)) for key, _ in entries), default=0)
    return [f"{look.bold(heading)}{GAP}{pad(one_line(key), columns)}{GAP}{said}" for key, said in entries]


def _counted(keys: list[str]) -> str:
    return f"{len(keys)}: {one_line(', '.join(keys))}" if keys else ""
