"""From recorded events to the attempts that they are of."""

from __future__ import annotations

from collections.abc import Collection

from steplog.engine.facts import AttemptId
from steplog.eventstore.events import AttemptData, CompensationStarted, EventData, SubStepStarted
from steplog.projections.plan import Shape

START = (SubStepStarted, CompensationStarted)
"""Events after which a handler is called."""


def attempt_of(event: AttemptData) -> AttemptId:
    """The attempt that an event of one names."""
    undoing = event.type().startswith("Compensation")
    return AttemptId(event.phase, event.sub_step, event.generation, event.attempt, event.item, undoing)


def goes_on(event: EventData, going: Collection[AttemptId]) -> bool:
    """Whether the event is none of a start that somebody has settled since."""
    return not isinstance(event, START) or attempt_of(event) in going


def timeout_s_of(shape: Shape, of: AttemptId) -> float | None:
    """How long the attempt may take."""
    plan = shape.sub_steps[of.key]
    compensation = plan.get("compensate")
    if of.undoing:
        return compensation.get("timeout_s") if compensation else None
    return plan.get("timeout_s")
