"""Hypothesis strategies: what may be in the log of a workflow's job, for tests of what is made from it.

The decider writes the logs, over handlers whose luck is drawn: no store, no threads. Needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from steplog.engine import facts as fact
from steplog.engine.context import fields_of
from steplog.engine.decider import decide, in_progress, next_due
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import ItemsRefused
from steplog.engine.facts import AttemptId, Fact, Listed, Situation
from steplog.engine.injection import Produces
from steplog.engine.listing import list_of_items
from steplog.engine.plan import plan_of
from steplog.engine.sub_step import FanOut
from steplog.engine.values import dump
from steplog.engine.vault import InClear
from steplog.eventstore import events as ev
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.clock import seconds_between
from steplog.eventstore.codec import decode
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.events import Event, EventData, NewEvent
from steplog.projections.evolve import evolve
from steplog.projections.plan import Key, Shape
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import GOING_ON, State
from steplog.testing.clock import VirtualClock

Values = st.SearchStrategy[Any]
Draw = Callable[[Values], Any]

STEPS_MAX = 30

_BOOLEANS = st.booleans()
_OUTCOMES = st.sampled_from(
    ["completed", "completed", "completed", "failed", "skipped", "checkpoint", "progress", "stale"]
)
_SPREADS = st.sampled_from([0.0, 0.5, 0.99])
_ANSWERS = st.sampled_from([True, True, "no"])
_CRASHES = st.sampled_from([False] * 9 + [True])
_SHORT_S = 0.5
ITEMS_MAX = 5

json_values: Values = st.sampled_from([None, 0, -0.5, "text", [1, {"a": []}], {"b": None, "a": {"é": True}}])
"""A few plain JSON values of every shape."""


listed_values: Values = st.integers(0, ITEMS_MAX).map(
    lambda count: [Listed(f"i{place}", {"number": place}) for place in range(count)]
)
"""A few items of a fan-out."""


@dataclass(frozen=True, slots=True)
class History:
    """The events of a job up to its end, to where it stopped, or to where it was cut off; and what they fold to."""

    events: list[Event]
    state: State


def histories(
    workflow: AnyDefinition,
    *,
    input: Values | None = None,
    results: Mapping[Produces[Any], Values] | None = None,
) -> st.SearchStrategy[History]:
    """Histories of jobs of the workflow, with values of the declared types.

    `input` and `results` are for types that hypothesis cannot draw, or should not draw all of. A handler that declares
    no type, or Any, returns plain JSON.
    """
    given = {sub_step.key: values for sub_step, values in (results or {}).items()}
    typed = {
        key: _recorded(given.get(key), sub_step.bindings.returns, f"result of {key}")
        for key, sub_step in workflow.sub_steps.items()
    }
    fields = {
        name: _recorded(None, field.annotation, f"context.{name}")
        for name, field in workflow.context_type.model_fields.items()
    }
    inputs = _recorded(input, workflow.input_type, "input")
    items = {
        key: _items_of(sub_step.fan_out, sub_step.bindings.item)
        for key, sub_step in workflow.sub_steps.items()
        if sub_step.fan_out is not None
    }
    created = st.builds(
        ev.JobCreated,
        workflow=st.just(workflow.name),
        workflow_version=st.just(workflow.version),
        plan=st.just(dict(plan_of(workflow))),
        input=inputs,
        context=st.just(fields_of(workflow.context_type(), InClear())),
    )
    changes = st.fixed_dictionaries({}, optional=fields)
    return created.flatmap(lambda job: histories_of(job, typed.__getitem__, changes, items.__getitem__))


@st.composite
def histories_of(
    draw: Draw,
    created: ev.JobCreated,
    results: Callable[[Key], Values],
    changes: Values,
    items: Callable[[Key], Values] = lambda key: listed_values,
) -> History:
    """Histories of a job that begins so: results by sub-step, changes of the context and items are plain JSON."""
    return _Life(draw, created, results, changes, items).run()


def _items_of(fan_out: FanOut, kind: Any) -> Values:
    """Lists of a fan-out's items; those that it refuses are left out."""

    def listed(items: list[Any]) -> list[Any]:
        try:
            return [list_of_items(items, kind, fan_out.key)]
        except (PayloadRefused, ItemsRefused):
            return []

    items = json_values if kind is Any else st.from_type(kind)
    return st.lists(items, max_size=ITEMS_MAX).map(listed).filter(bool).map(lambda kept: kept[0])


def _recorded(values: Values | None, annotation: Any, path: str) -> Values:
    """Values of the type as the log keeps them; those that it refuses are left out."""
    if values is None:
        values = json_values if annotation is Any else st.from_type(annotation or type(None))

    def recorded(value: object) -> list[Any]:
        try:
            return [dump(value, annotation, path, InClear())]
        except PayloadRefused:
            return []

    return values.map(recorded).filter(bool).map(lambda kept: kept[0])


class _Life:
    """One job, from its creation on."""

    def __init__(
        self,
        draw: Draw,
        created: ev.JobCreated,
        results: Callable[[Key], Values],
        changes: Values,
        items: Callable[[Key], Values],
    ) -> None:
        self._draw = draw
        self._results = results
        self._changes = changes
        self._items = items
        self._clock = VirtualClock()
        self._shape = Shape.of(created.plan)
        self._events: list[Event] = []
        self._position = Position()
        self._epoch = 0
        self._state: Any = None
        self._foreseen: Any = None
        self._job_id = self._clock.new_id()
        self._record([created])
        self._claim()

    def run(self) -> History:
        self._decide([])
        for _ in range(STEPS_MAX):
            if self._state["status"] in GOING_ON:
                self._go_on()
            elif self._state["status"] == "parked" or (
                self._state["status"] == "failed" and not self._state["undoing"]
            ):
                self._resume_or_not()
            else:
                break
        return History(self._events, self._foreseen)

    def _resume_or_not(self) -> None:
        if self._draw(_BOOLEANS):
            self._record([ev.JobResumed(by="anna")])
            self._claim()
            self._decide([])

    def _go_on(self) -> None:
        running = in_progress(self._state)
        if running and self._draw(_CRASHES):
            self._claim()
            self._decide([fact.Interrupted("owner died", "former")])
        elif running:
            self._decide([self._outcome(of) for of in running if self._draw(_BOOLEANS)])
        else:
            self._receive_signals()
            self._pass_time()
            self._decide([])

    def _pass_time(self) -> None:
        """Up to when something is due, or less."""
        due = next_due(self._state, self._now())
        until_due_s = seconds_between(self._now(), due) if due else 1.0
        self._clock.advance(until_due_s if self._draw(_BOOLEANS) else min(_SHORT_S, until_due_s))

    def _receive_signals(self) -> None:
        for key in self._shape.sub_steps:
            wait = sub_step_of(self._state, key)["wait"]
            if wait and wait["signal"] and self._draw(_BOOLEANS):
                payload, signal_id = self._draw(self._results(key)), self._clock.new_id()
                self._record([ev.SignalReceived(name=wait["signal"], payload=payload, signal_id=signal_id)])

    def _outcome(self, of: AttemptId) -> Fact:
        match self._draw(_OUTCOMES):
            case "completed":
                return fact.Completed(of, self._draw(self._results(of.key)), self._draw(self._changes), 1.0)
            case "failed":
                error = {"type": "E", "message": "m", "traceback": "t", "retryable": self._draw(_BOOLEANS)}
                return fact.Failed(of, error, 1.0, self._draw(_SPREADS))
            case "skipped":
                return fact.SkipRaised(of, "nothing to do")
            case "checkpoint":
                return fact.CheckpointReached(of, self._draw(json_values), self._draw(self._changes))
            case "progress":
                return fact.Progressed(of, 1, 2, None)
            case _:
                return fact.Completed(of._replace(attempt=of.attempt + 1), None, {}, 1.0)

    def _decide(self, happened: list[Fact]) -> None:
        situation = Situation()
        decision = decide(self._state, self._shape, happened, self._now(), situation)
        while decision.questions or decision.unlisted:
            answers = {key: self._draw(_ANSWERS) for key in decision.questions}
            items = {key: self._draw(self._items(key)) for key in decision.unlisted}
            situation = situation._replace(answers={**situation.answers, **answers}, items={**situation.items, **items})
            decision = decide(self._state, self._shape, happened, self._now(), situation)
        self._record(list(decision.events))
        self._foreseen = decision.state

    def _claim(self) -> None:
        self._epoch += 1
        reason: Any = "takeover" if self._epoch > 1 else "first"
        claimed = ev.JobClaimed(worker_id=f"w{self._epoch}", epoch=self._epoch, claim_id="c", reason=reason)
        self._record([claimed])

    def _record(self, data: list[EventData]) -> None:
        sealed = seal(self._job_id, self._position, data, self._now(), self._clock)
        self._position = end_of(sealed, self._position)
        for event in sealed:
            self._events.append(as_read(event))
            self._state = evolve(self._state, self._events[-1])

    def _now(self) -> str:
        return max(self._clock.now(), self._position.recorded_at)


def as_read(event: NewEvent) -> Event:
    """The event as a store hands it out."""
    return Event(
        event.job_id,
        event.version,
        event.event_id,
        event.type,
        event.schema_version,
        event.recorded_at,
        decode(event.payload),
        event.hash,
    )
