"""`diff` and `compare` as lines. Pure functions of what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from steplog.projections.compare import OWNERSHIP, Comparison, Difference, Happened
from steplog.projections.diff import Change
from steplog.projections.state import State
from steplog.terminal.look import Look
from steplog.terminal.table import table
from steplog.terminal.text import one_line, short
from steplog.terminal.times import duration, since
from steplog.terminal.tree import View, header

VALUE_COLUMNS = 48
_ALWAYS = frozenset({("version",), ("updated_at",)})
"""What is different at every version."""
_LEVELS = frozenset({"phases", "sub_steps"})
_INSTANTS = frozenset({"started_at", "completed_at", "ended_at", "retry_at", "run_at"})
"""Shown as the time since the job was created, unless UTC is wanted."""


def diff_lines(changes: Iterable[Change], before: State, after: View) -> list[str]:
    """The job as of the later version, and a line for each value that is another than at the earlier one."""
    look = after.look
    rows = [
        [
            _place(change.path),
            _value(change, "add", change.before, before["created_at"], look),
            _value(change, "remove", change.after, before["created_at"], look),
        ]
        for change in changes
        if change.path not in _ALWAYS
    ]
    versions = f"event {before['version']}", f"event {after.state['version']}"
    apart = _apart(before["recorded_at"], after.state["recorded_at"])
    lines = table(("what", *versions), rows, look) if rows else ["nothing changed"]
    return [look.fit(line) for line in [header(after), f"{versions[0]} → {versions[1]}, {apart}", *lines]]


def comparison_lines(comparison: Comparison, a: str, b: str, look: Look) -> list[str]:
    """What the jobs were given that differs, and where they parted."""
    names = look.job(a), look.job(b)
    lines: list[str] = []
    if comparison["given"]:
        lines += ["given", *_differences(comparison["given"], names, look)]
    divergence = comparison["divergence"]
    if divergence is None:
        counts = comparison["events"]
        lines.append(f"the same as far as both have come: {counts['a']} and {counts['b']} events compared")
    else:
        place = {"": "the job", OWNERSHIP: "who ran the job"}.get(divergence["place"], one_line(divergence["place"]))
        lines.append(f"first divergence: {place}")
        lines += (
            f"  {name}  {_event(event)}" for name, event in zip(names, (divergence["a"], divergence["b"]), strict=True)
        )
        lines += _differences(divergence["differences"], names, look)
    return [look.fit(line) for line in lines]


def _differences(differences: Sequence[Difference], names: tuple[str, str], look: Look) -> Iterator[str]:
    rows = [
        [_place(tuple(each["path"])), short(each["a"], VALUE_COLUMNS), short(each["b"], VALUE_COLUMNS)]
        for each in differences
    ]
    return (f"  {line}" for line in table(("what", *names), rows, look)) if rows else iter(())


def _event(event: Happened | None) -> str:
    return f"event {event['version']}: {one_line(event['type'])}" if event else "ended without it"


def _place(path: Sequence[str | int]) -> str:
    """`phase/sub-step/field`: the path without the levels that everybody knows."""
    return one_line("/".join(str(part) for part in path if part not in _LEVELS)) or "(everything)"


def _value(change: Change, absent_where: str, value: object, began_at: str, look: Look) -> str:
    """As JSON, but for what steplog itself says of statuses and times."""
    if change.operation == absent_where:
        return "(absent)"
    field = change.path[-1] if _is_ours(change.path) else None
    if field == "seconds" and isinstance(value, float):
        return duration(value)
    if field == "status":
        return look.status(str(value))
    if field in _INSTANTS and isinstance(value, str) and not look.utc:
        return f"+{since(began_at, value)}"
    return short(value, VALUE_COLUMNS)


def _is_ours(path: Sequence[str | int]) -> bool:
    """Whether it is a field of the job, a phase or a sub-step, and nothing of the user's."""
    return len(path) == 1 or (path[0] == "phases" and len(path) in (3, 5))


def _apart(before: str, after: str) -> str:
    return f"{since(before, after)} later" if after >= before else f"{since(after, before)} earlier"
