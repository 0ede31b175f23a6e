"""How values look on a page: statuses, times, JSON; and text that nobody can disguise. Pure functions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from markupsafe import Markup

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.sealed import hidden
from steplog.projections.timeline_axis import time_label

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What shows as nothing, or would turn the text around it."""


class Mark(NamedTuple):
    """What stands before a status' word, the word, and its tone."""

    glyph: str
    word: str
    tone: str


_MARKS = {
    "queued": Mark("○", "queued", "quiet"),
    "pending": Mark("○", "pending", "quiet"),
    "waiting": Mark("◔", "waiting", "quiet"),
    "running": Mark("▶", "running", "live"),
    "in_progress": Mark("▶", "in progress", "live"),
    "compensating": Mark("↺", "compensating", "warn"),
    "retrying": Mark("↻", "retrying", "warn"),
    "interrupted": Mark("↯", "interrupted", "warn"),
    "stalled": Mark("↯", "stalled", "bad"),
    "paused": Mark("‖", "paused", "warn"),
    "parked": Mark("■", "parked", "bad"),
    "tolerated": Mark("!", "failed, tolerated", "warn"),
    "failed": Mark("✗", "failed", "bad"),
    "cancelled": Mark("⊘", "cancelled", "quiet"),
    "skipped": Mark("⤼", "skipped", "quiet"),
    "completed": Mark("✓", "completed", "good"),
    "alive": Mark("✓", "alive", "good"),
    "dead": Mark("✗", "dead", "bad"),
    "stopped": Mark("○", "stopped", "quiet"),
}


def mark(status: str | None) -> Mark:
    """The mark of a status; one that is not known is its own word."""
    return _MARKS.get(status or "pending") or Mark("?", status or "", "quiet")


def visible(value: Any) -> Any:
    """The text with what nobody would see made visible; markup and other values as they are."""
    if value is None:
        return ""
    return _UNSEEN.sub("\ufffd", value) if type(value) is str else value


def took(start: str | None, end: str | None) -> str:
    """The time between two instants, `1m04s`."""
    return time_label(max(seconds_between(start, end), 0.0)) if start and end else ""


def seconds(value: float | None) -> str:
    """A duration."""
    return time_label(value) if value is not None else ""


def ago(instant: str | None, now: str) -> Markup:
    """A time as a person reads it, with the exact one behind it."""
    if not instant:
        return Markup("")
    passed = seconds_between(instant, now)
    said = f"{time_label(passed)} ago" if passed >= 0 else f"in {time_label(-passed)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(instant, instant, said)


def clock(instant: str | None) -> Markup:
    """The time of day, with the whole instant behind it."""
    if not instant:
        return Markup("")
    shown = datetime.fromisoformat(instant).strftime("%H:%M:%S.%f")[:-3]
    return Markup('<time datetime="{}" title="{}">{}</time>').format(instant, instant, shown)


def json_of(value: Any, chars_max: int = 0) -> str:
    """A value as JSON, without what is sealed in it: laid out, or on one line cut to so many characters."""
    value = hidden(value)
    if not chars_max:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return short(value if isinstance(value, str) else orjson.dumps(value).decode(), chars_max)


def short(text: str | None, chars_max: int = 120) -> str:
    """The text on one line, cut."""
    line = " ".join((text or "").split())
    return line if len(line) <= chars_max else f"{line[: chars_max - 1]}…"


def error_of(error: dict[str, Any] | None, chars_max: int = 0) -> str:
    """An error's type and message."""
    if not error:
        return ""
    told = f"{error.get('type', 'Error')}: {error.get('message', '')}".rstrip(": ")
    return short(told, chars_max) if chars_max else told


def percent(done: float, total: float | None) -> float:
    """How much is done, of 100."""
    return min(100.0, 100.0 * done / total) if total else 0.0


def id_of(job_id: str) -> str:
    """An id as far as a person has to read it."""
    return f"…{job_id[-6:]}"
