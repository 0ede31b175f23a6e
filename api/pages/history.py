"""What events say in a few words, and where in a history something broke. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from steplog.api.pages.look import error_of, json_of, short

WORDS_CHARS_MAX = 160

_BROKE = {
    "SubStepFailed": "failed",
    "PhaseFailed": "failed",
    "JobFailed": "failed",
    "JobParked": "failed",
    "SubStepInterrupted": "crashed",
    "LateOutcome": "crashed",
}
TONES = {
    "SubStepFailed": "bad", "PhaseFailed": "bad", "JobFailed": "bad", "JobParked": "bad", "CompensationFailed": "bad",
    "SubStepInterrupted": "warn", "LateOutcome": "warn", "SubStepRetryScheduled": "warn", "SubStepCompleted": "good",
    "PhaseCompleted": "good", "JobCompleted": "good", "SubStepStarted": "live", "PhaseStarted": "live",
}  # fmt: skip


_SAID = {
    "result": "", "cursor": "at ", "sub_steps": "", "failed": "", "lines": "", "name": "", "workflow": "",
    "retry_at": "at ",
}  # fmt: skip
"""Which field of an event says most, and what stands before it."""


class Tick(NamedTuple):
    """A version at which something broke."""

    version: int
    kind: str
    told: str


def ticks(events: Iterable[tuple[int, str, dict[str, Any]]], most: int = 200) -> list[Tick]:
    """The latest versions at which something failed or was cut off by a crash."""
    found = [
        Tick(version, _BROKE[type], f"{version}: {_of_whom(data)} {type}".replace("  ", " "))
        for version, type, data in events
        if type in _BROKE
    ]
    return found[-most:]


def words_of(type: str, data: dict[str, Any]) -> str:
    """What an event says, in a few words."""
    if type in ("SubStepFailed", "JobFailed", "CompensationFailed"):
        return error_of(data.get("error"), WORDS_CHARS_MAX)
    parts = [
        f"attempt {data['attempt']}" if data.get("attempt", 1) > 1 else "",
        str(data.get("reason") or data.get("cause") or ""),
        f"by {data['by']}" if data.get("by", "engine") != "engine" else "",
        _values(data),
    ]
    return short(" · ".join(part for part in parts if part), WORDS_CHARS_MAX)


def _of_whom(data: dict[str, Any]) -> str:
    return str(data.get("sub_step") or data.get("phase") or "")


def _values(data: dict[str, Any]) -> str:
    if "done" in data:
        of = f"/{data['total']}" if data.get("total") else ""
        return f"{data['done']}{of} {data.get('note') or ''}".strip()
    if data.get("set") or data.get("unset"):
        return f"sets {', '.join([*data.get('set', {}), *data.get('unset', [])])}"
    for name in _SAID:
        if data.get(name):
            return f"{_SAID[name]}{json_of(data[name], 70)}"
    return ""
