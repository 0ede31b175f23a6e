"""The plan of a job: a workflow's shape as data, and the index that rules look things up in.

A sub-step's key is `phase/name`. Phase names have no slash, so a key parts at its first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

Key = str
"""`phase/name` of a sub-step."""


Place = str
"""A sub-step's key, or that of an item of a fan-out: the sub-step's, a line feed, which no name has, and the item's."""

ITEM_MARK = "\n"
UNDO_MARK = "\n\ncompensation"
"""Behind the key of a sub-step, its compensation; no item is called so."""

OnInterrupt = Literal["retry", "hold", "fail"]
"""What becomes of an attempt whose owner died or had to stop: it runs again, waits for a person, or has failed."""


class RetryPlan(TypedDict):
    """Attempts in all, and the waits between them in seconds."""

    attempts: int
    wait_s: float
    factor: float
    wait_s_max: float
    jitter: float


class WaitPlan(TypedDict):
    """What a sub-step waits for instead of running a handler: time, or a signal, for so long at most."""

    kind: Literal["sleep", "signal"]
    signal: str | None
    seconds: float | None


class MapPlan(TypedDict):
    """A fan-out: how many of its items run at once. Which they are is known only at run time."""

    parallel: int


class CompensatePlan(TypedDict):
    """How a sub-step's effect is undone."""

    retry: RetryPlan
    timeout_s: NotRequired[float]


class SubStepPlan(TypedDict):
    """A sub-step as declared. `after` are edges of order, `needs` edges of data, `defaults` the needs that may fail."""

    name: str
    after: list[Key]
    needs: list[Key]
    defaults: list[Key]
    optional: bool
    when: bool
    retry: RetryPlan
    timeout_s: NotRequired[float]
    deadline_s: NotRequired[float]
    """For all its attempts and what lies between them, from the first start."""
    on_interrupt: OnInterrupt
    wait: NotRequired[WaitPlan]
    map: NotRequired[MapPlan]
    compensate: NotRequired[CompensatePlan]
    default: NotRequired[Any]
    """The result of a wait for a signal that did not come in time; without one, that is a failure."""


class PhasePlan(TypedDict):
    """A barrier and its sub-steps; `parallel` bounds how many of them run at once."""

    name: str
    description: NotRequired[str]
    parallel: NotRequired[int]
    sub_steps: list[SubStepPlan]


class Plan(TypedDict):
    """Phases in the order they run."""

    phases: list[PhasePlan]
    deadline_s: NotRequired[float]
    """For the whole job, from its creation or from when a person let it go on."""
    compensate_on: NotRequired[list[Literal["failed", "cancelled"]]]
    """The ends before which what has completed is undone."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A plan indexed for lookup; iteration is in the order of declaration."""

    phases: dict[str, PhasePlan]
    sub_steps: dict[Key, SubStepPlan]
    of_phase: dict[str, tuple[Key, ...]]
    place: dict[str, dict[str, int]]
    """By phase, where each of its sub-steps stands in the order of declaration."""
    gated: dict[str, tuple[str, ...]]
    """By phase, the names of its sub-steps that may turn out not to run: they have a condition or need a result."""

    waits: dict[str, dict[Key, WaitPlan]]
    """By phase, its sub-steps that only wait, and for what."""
    fan_outs: dict[str, dict[Key, MapPlan]]
    """By phase, its sub-steps that run once for each item of a list."""

    @staticmethod
    def of(plan: dict[str, Any] | Plan) -> Shape:
        """The index of a recorded plan."""
        phases: dict[str, PhasePlan] = {phase["name"]: phase for phase in plan["phases"]}
        sub_steps = {key_of(name, step["name"]): step for name, phase in phases.items() for step in phase["sub_steps"]}
        names = {name: tuple(step["name"] for step in phase["sub_steps"]) for name, phase in phases.items()}
        return Shape(
            phases,
            sub_steps,
            of_phase={phase: tuple(key_of(phase, name) for name in names[phase]) for phase in phases},
            place={phase: {name: place for place, name in enumerate(names[phase])} for phase in phases},
            gated={
                name: tuple(step["name"] for step in phase["sub_steps"] if step["when"] or step["needs"])
                for name, phase in phases.items()
            },
            waits={
                name: {key_of(name, step["name"]): step["wait"] for step in phase["sub_steps"] if "wait" in step}
                for name, phase in phases.items()
            },
            fan_outs={
                name: {key_of(name, step["name"]): step["map"] for step in phase["sub_steps"] if "map" in step}
                for name, phase in phases.items()
            },
        )

    def follows(self, key: Key, other: Key) -> bool:
        """Whether the sub-step has an edge from the other, directly or through others."""
        seen: set[Key] = set()
        unseen = [key]
        while unseen and other not in seen:
            step = self.sub_steps[unseen.pop()]
            edges = {*step["after"], *step["needs"]} - seen
            seen |= edges
            unseen += edges
        return other in seen


def key_of(phase: str, sub_step: str) -> Key:
    """The key of a sub-step."""
    return f"{phase}/{sub_step}"


def split_key(key: Key) -> tuple[str, str]:
    """Phase and name of a key."""
    phase, _, sub_step = key.partition("/")
    return phase, sub_step


def place_of(phase: str, sub_step: str, item: str | None = None, *, undoing: bool = False) -> Place:
    """The place of a sub-step, of an item of it, or of its compensation."""
    key = key_of(phase, sub_step)
    if undoing:
        return f"{key}{UNDO_MARK}"
    return key if item is None else f"{key}{ITEM_MARK}{item}"


def key_of_place(place: Place) -> Key:
    """The key of the sub-step there."""
    return place.partition(ITEM_MARK)[0]


def shown_place(place: Place) -> str:
    """The place as people read it: `phase/name`, or `phase/name[item]`."""
    if place.endswith(UNDO_MARK):
        return f"the compensation of {place.removesuffix(UNDO_MARK)}"
    key, mark, item = place.partition(ITEM_MARK)
    return f"{key}[{item}]" if mark else key
