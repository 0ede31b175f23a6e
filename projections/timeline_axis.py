"""The axis of a timeline: where on a line of given length an instant stands, and round times to write along it.

A gap that is long beside the time in which the job ran is drawn shorter, so that a night between a crash and the
resume leaves something of the minutes around it. Times along the axis leave out what was cut from such gaps, and
whoever draws it says so.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Self

from steplog.eventstore.clock import seconds_between
from steplog.projections.timeline import Gap, Timeline

GAP_SHARE_MAX = 0.5
"""How much of the time in which the job ran a gap may take and is drawn as long as it was."""
CUT_GAP_SHARE = 0.15
"""How much of that time one is drawn as that took more."""
GAP_S_MIN = 0.1
"""Gaps up to this length are never cut."""

_STEPS_S = tuple(
    step * unit for unit, steps in (
        (0.001, (1, 2, 5, 10, 20, 50, 100, 200, 500)), (1, (1, 2, 5, 10, 20, 30)), (60, (1, 2, 5, 10, 20, 30)),
        (3600, (1, 2, 3, 6, 12)), (86400, (1, 2, 7, 14, 28, 91, 364)),
    )
    for step in steps
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Axis:
    """Knots between which time runs evenly: seconds since the job began, and where on the axis they stand."""

    began_at: str
    passed: tuple[float, ...]
    drawn: tuple[float, ...]

    @classmethod
    def of(cls, timeline: Timeline) -> Self:
        """The axis from the job's beginning to the timeline's edge."""
        began = timeline["began_at"]
        whole = max(seconds_between(began, timeline["edge_at"]), 0.001)
        gaps = [(seconds_between(began, gap["started_at"]), gap_s(gap, timeline)) for gap in timeline["gaps"]]
        ran = whole - sum(length for _, length in gaps)
        longest, cut = max(GAP_SHARE_MAX * ran, GAP_S_MIN), max(CUT_GAP_SHARE * ran, GAP_S_MIN)
        passed, drawn = [0.0], [0.0]
        for start, length in gaps:
            drawn.append(drawn[-1] + start - passed[-1])
            drawn.append(drawn[-1] + (length if length <= longest else cut))
            passed += start, start + length
        drawn.append(drawn[-1] + whole - passed[-1])
        return cls(began, (*passed, whole), tuple(drawn))

    def place(self, instant: str) -> float:
        """Where the instant stands, from 0 to 1."""
        passed = min(max(seconds_between(self.began_at, instant), 0.0), self.passed[-1])
        at = min(bisect_right(self.passed, passed), len(self.passed) - 1)
        length = self.passed[at] - self.passed[at - 1]
        share = (passed - self.passed[at - 1]) / length if length else 0.0
        return (self.drawn[at - 1] + share * (self.drawn[at] - self.drawn[at - 1])) / self.drawn[-1]

    @property
    def cut_s(self) -> float:
        """How much was cut from gaps, to the millisecond."""
        return round(self.passed[-1] - self.drawn[-1], 3)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most so many places, each with a round time that has passed there."""
        length = self.drawn[-1]
        step = next((step for step in _STEPS_S if length / step < most), length)
        return [(at * step / length, time_label(at * step)) for at in range(int(length / step) + 1)]


def gap_s(gap: Gap, timeline: Timeline) -> float:
    """How long the gap lasted, or has lasted."""
    return max(seconds_between(gap["started_at"], gap["ended_at"] or timeline["edge_at"]), 0.0)


def time_label(seconds: float) -> str:
    """`0`, `250ms`, `1.5s`, `40s`, `1m30s`, `2h`, `3d04h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms" if seconds >= 0.0005 else "0"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for unit, parts, name, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= unit:
            rest = whole % unit // parts
            return f"{whole // unit}{name}" + (f"{rest:02}{part}" if rest else "")
    return f"{whole}s"
