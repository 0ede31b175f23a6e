"""Statistics of sub-steps: how often they ran, how often that failed, and how long it took. Pure.

Of a fan-out the items' attempts count: listing them, and their end as a group, are none.

Durations are counted in classes a twentieth apart, so a percentile is right to 2.5 % and costs the same for ten
attempts and for ten million.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any

from steplog.eventstore.events import Event
from steplog.eventstore.projected import Document, StepRow
from steplog.projections.plan import Shape, key_of, split_key
from steplog.projections.projecting import Job, Tally, added, group_key, names_of
from steplog.projections.sub_step_rules import ENGINE

_WIDTH = log(1.05)
_SHORTEST_S = 1e-6
_COUNTED = {
    "SubStepCompleted": "completed",
    "SubStepFailed": "failed",
    "SubStepInterrupted": "interrupted",
    "SubStepSkipped": "skipped",
}


@dataclass(frozen=True, slots=True)
class SubStepStatistics:
    """A sub-step over all jobs of its workflow. Skips are no attempts; seconds are those of completed attempts."""

    workflow: str
    phase: str
    sub_step: str
    attempts: int
    completed: int
    failed: int
    interrupted: int
    skipped: int
    failure_rate: float | None
    """Of the attempts that completed or failed; None where none did."""
    p50_s: float | None
    p95_s: float | None


class Statistics:
    """Keeps of each job what its sub-steps did, and adds it up by workflow, phase and sub-step."""

    name = "statistics"
    revision = 2
    table = None

    def document(self, job: Job) -> Any:
        document = job.known or {"workflow": None, "groups": [], "sub_steps": {}}
        for event in job.events():
            document = _after(document, event)
        return document

    def tallies(self, document: Any) -> Mapping[str, Tally]:
        return {group_key(document["workflow"], *split_key(key)): tally for key, tally in document["sub_steps"].items()}

    def rows(self, document: Any) -> list[StepRow]:
        return []


def statistics_of(documents: Iterable[Document]) -> list[SubStepStatistics]:
    """What the documents of groups say, in the order of their names."""
    found = [(names_of(document.key), document.data) for document in documents if document.data]
    return [_statistics(names, tally) for names, tally in sorted(found, key=lambda group: group[0])]


def _after(document: Any, event: Event) -> Any:
    """The document after one more event; the one before stays as it was."""
    if event.version == 1:
        document = {**document, "workflow": event.data["workflow"]}
    if event.version == 1 or event.type == "PlanAdopted":
        groups = Shape.of(event.data["plan"]).fan_outs.values()
        return {**document, "groups": sorted(key for of_phase in groups for key in of_phase)}
    counted = _COUNTED.get(event.type)
    if counted is None or event.data.get("by", ENGINE) != ENGINE:
        return document
    key = key_of(event.data["phase"], event.data["sub_step"])
    if counted != "skipped" and "item" not in event.data and key in document["groups"]:
        return document
    tally: Tally = {counted: 1}
    if counted == "completed":
        tally["classes"] = {str(_class_of(event.data["seconds"])): 1}
    before = document["sub_steps"]
    return {**document, "sub_steps": {**before, key: added(before.get(key, {}), tally)}}


def _statistics(names: list[str], tally: Tally) -> SubStepStatistics:
    completed, failed, interrupted = (tally.get(name, 0) for name in ("completed", "failed", "interrupted"))
    classes = sorted((int(number), count) for number, count in tally.get("classes", {}).items())
    workflow, phase, sub_step = names
    return SubStepStatistics(
        workflow,
        phase,
        sub_step,
        attempts=completed + failed + interrupted,
        completed=completed,
        failed=failed,
        interrupted=interrupted,
        skipped=tally.get("skipped", 0),
        failure_rate=failed / (completed + failed) if completed + failed else None,
        p50_s=_percentile(classes, 0.5),
        p95_s=_percentile(classes, 0.95),
    )


def _class_of(seconds: float) -> int:
    return round(log(max(seconds, _SHORTEST_S)) / _WIDTH)


def _percentile(classes: list[tuple[int, int]], part: float) -> float | None:
    """The middle of the class that holds the attempt at that part of them, the shortest first."""
    left = part * sum(count for _, count in classes)
    for number, count in classes:
        left -= count
        if left <= 0:
            return float(f"{exp(number * _WIDTH):.3g}")
    return None
