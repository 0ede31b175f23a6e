"""What people do to a job by hand, in one place: each action is drawn, told and carried out here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from steplog.engine import operators
from steplog.engine.definition import AnyDefinition
from steplog.engine.fork import fork
from steplog.engine.operators import Appended
from steplog.eventstore.clock import Clock
from steplog.eventstore.store import Store

WHO = "anna"

UNFIT = 3
"""A signal with that value has a payload that no sub-step takes."""

Kind = Literal[
    "set", "edit-input", "signal", "pause", "resume", "cancel", "fork", "retry", "skip", "complete", "fail", "reset"
]
_OF_SUB_STEPS = frozenset({"retry", "skip", "complete", "fail", "reset"})


@dataclass(frozen=True, slots=True)
class Action:
    """One call by a person; the job may refuse it. A retry without a sub-step is one of all that failed."""

    kind: Kind
    key: str = ""
    field: str = ""
    value: int = 0

    def __str__(self) -> str:
        said = f"{self.field} = {self.value}" if self.kind in ("set", "edit-input", "signal", "fork") else self.key
        return f"{WHO}: {self.kind} {said}".rstrip()

    def perform(self, store: Store, clock: Clock, job_id: str, definition: AnyDefinition) -> Appended:
        """Raises SteplogError where the job or the store refuses it."""
        match self.kind:
            case "set":
                return operators.set_context(store, job_id, {self.field: self.value}, by=WHO, clock=clock)
            case "edit-input":
                return operators.edit_input(store, job_id, {self.field: self.value}, by=WHO, clock=clock)
            case "signal":
                payload = ["not this"] if self.value == UNFIT else self.value
                return operators.signal(store, job_id, self.field, payload, by=WHO, clock=clock)
            case "fork":
                return fork(store, job_id, values={self.field: self.value}, by=WHO, clock=clock)
            case "pause":
                return operators.pause(store, job_id, by=WHO, clock=clock)
            case "resume":
                return operators.resume(store, job_id, by=WHO, accept=True, clock=clock)
            case "cancel":
                return operators.cancel(store, job_id, by=WHO, clock=clock)
            case "retry":
                return operators.retry(store, job_id, self.key or None, by=WHO, clock=clock)
            case "skip":
                return operators.skip(store, job_id, self.key, by=WHO, clock=clock)
            case "complete":
                done = ["by hand"] if _is_group(definition, self.key) else "by hand"
                return operators.complete(store, job_id, self.key, done, by=WHO, clock=clock, definition=definition)
            case "fail":
                return operators.fail(store, job_id, self.key, by=WHO, clock=clock)
            case "reset":
                return operators.reset(store, job_id, self.key, by=WHO, clock=clock)


def _is_group(definition: AnyDefinition, key: str) -> bool:
    return key in definition.sub_steps and definition.sub_steps[key].fan_out is not None


def draw_action(random: Random, keys: Sequence[str]) -> Action:
    """Any action at any time: what it is refused for is part of the story."""
    kind: Kind = random.choices(get_args(Kind), (7, 2, 6, 3, 3, 2, 2, 4, 3, 3, 3, 4))[0]
    match kind:
        case "set":
            return Action("set", field=random.choice(("a", "b")), value=random.choice((7, 8)))
        case "edit-input":
            return Action("edit-input", field="n", value=random.choice((1, 2)))
        case "signal":
            return Action("signal", field=random.choice(("go", "stop")), value=random.choice((1, 2, UNFIT)))
        case "fork":
            return Action("fork", field=random.choice(("a", "b")), value=9)
    return Action(kind, key=random.choice(keys) if kind in _OF_SUB_STEPS else "")
