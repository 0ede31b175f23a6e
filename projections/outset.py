"""What follows from a plan alone: its index, and what the state of a job on it begins with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from steplog.eventstore.codec import encode
from steplog.projections.plan import Key, Plan, Shape
from steplog.projections.state import PhaseState, deadlines_of, dependents_of, new_phases


@dataclass(frozen=True)
class Outset:
    """Jobs that begin on one plan may share it: who goes on from their states copies what he changes."""

    plan: Plan
    shape: Shape
    total: int
    dependents: dict[Key, list[Key]]
    deadlines: dict[Key, float]
    phases: dict[str, PhaseState]

    @staticmethod
    def of(plan: Plan) -> Outset:
        """The outset of a recorded plan."""
        shape = Shape.of(plan)
        return Outset(plan, shape, len(shape.sub_steps), dependents_of(plan), deadlines_of(plan), new_phases(plan))

    @cached_property
    def encoded_plan(self) -> bytes:
        """The plan as the log keeps it. Raises PayloadRefused."""
        encode({"plan": self.plan}, path="JobCreated")  # refuses what is too deep where it will stand
        return encode(self.plan)
