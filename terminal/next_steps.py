"""`resume-point`: what would run next, and why, as lines. A pure function of the resume point."""

from __future__ import annotations

from typing import Any

from steplog.projections.state import STOPPED
from steplog.terminal.look import Look
from steplog.terminal.table import GAP, facts
from steplog.terminal.text import one_line, pad, short, width
from steplog.terminal.tree import View, header

_KIND_COLUMNS = len("skipped")


def resume_point_lines(point: dict[str, Any], view: View) -> list[str]:
    """The job, what runs next, what waits and for what, and what is settled already."""
    look = view.look
    run = [_said("run", entry["sub_step"], _why(entry, view)) for entry in point["run"]]
    waiting = [_said("waiting", entry["sub_step"], _for(entry, view)) for entry in point["waiting"]]
    settled = [
        f"{pad(kind, _KIND_COLUMNS)}{GAP}{len(point[kind])}: {one_line(', '.join(point[kind]))}"
        for kind in ("failed", "skipped", "done")
        if point[kind]
    ]
    nothing = "nothing runs until somebody resumes it" if point["status"] in STOPPED else "nothing would run"
    context = [f"{GAP}{line}" for line in context_lines(point["context"], look)]
    lines = [header(view), *(_aligned([*run, *waiting]) or [nothing]), *settled]
    return [look.fit(line) for line in [*lines, *([look.dim("context"), *context] if context else [])]]


def context_lines(context: dict[str, Any], look: Look) -> list[str]:
    """A field of the context a line."""
    return [
        look.fit(line) for line in facts([(one_line(name), short(value, 80)) for name, value in context.items()], look)
    ]


def _why(entry: dict[str, Any], view: View) -> str:
    """Which attempt, because of what, and when it is due."""
    because = one_line(entry["because"])
    if view.stalled and because.startswith("in progress"):
        because = "its process is gone, its effect may have happened"
    not_before = entry["not_before"]
    due = f", not before {view.look.when(not_before, view.now)}" if not_before and not_before > view.now else ""
    return f"attempt {entry['attempt']}: {because}{due}"


def _for(entry: dict[str, Any], view: View) -> str:
    """What it waits for, and until when at the latest."""
    until = f", until {view.look.when(entry['until'], view.now)}" if entry["until"] else ""
    return f"for {one_line(entry['for'])}{until}"


def _said(kind: str, key: str, why: str) -> tuple[str, str, str]:
    return kind, one_line(key), why


def _aligned(entries: list[tuple[str, str, str]]) -> list[str]:
    columns = max((width(key) for _, key, _ in entries), default=0)
    return [f"{pad(kind, _KIND_COLUMNS)}{GAP}{pad(key, columns)}{GAP}{why}" for kind, key, why in entries]
