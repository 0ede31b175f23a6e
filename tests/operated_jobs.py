"""Jobs for tests of what people do to them by hand: run in the decider's mind, without a store and handlers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shown_jobs import JOB_ID, after

from steplog.engine import facts as fact
from steplog.engine.actions import Who
from steplog.engine.decider import decide, in_progress, next_due
from steplog.engine.facts import Listed, Situation
from steplog.eventstore import events as ev
from steplog.eventstore.clock import later
from steplog.eventstore.events import Event, EventData
from steplog.projections.evolve import Evolution, evolve
from steplog.projections.plan import Shape, key_of
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import SETTLED, State

ANNA = Who("anna", "the service is back")
ERROR = {"type": "ConnectionError", "message": "503", "traceback": "", "retryable": False}
FLAKY = {**ERROR, "retryable": True}
LIFE_STEPS_MAX = 300


def plan(**phases: list[dict[str, Any]]) -> dict[str, Any]:
    return {"phases": [{"name": name, "sub_steps": sub_steps} for name, sub_steps in phases.items()]}


ITEMS = [Listed(f"i{place}", place) for place in range(3)]


class Job:
    """A job that goes on as a test says; a second passes with every append."""

    def __init__(self, of: dict[str, Any], context: dict[str, Any] | None = None) -> None:
        created = ev.JobCreated(workflow="w", workflow_version="1", plan=of, context=context or {}, input={"n": 1})
        self.decided: list[EventData] = []
        """What the latest decision came to."""
        self.state: State = evolve(None, Event(JOB_ID, 1, "", created.type(), 1, after(0), created.as_data(), ""))
        self.shape = Shape.of(of)
        self.items: dict[str, list[Listed] | dict[str, Any]] = {}
        """By fan-out, what its items are listed to be; three, unless a test says otherwise."""

    def append(self, *data: EventData) -> list[EventData]:
        evolution = Evolution(self.state)
        for each in data:
            evolution.foresee(each, self.now())
        self.state = evolution.state
        return list(data)

    def now(self) -> str:
        return later(self.state["recorded_at"], 1.0)

    def claim(self, answer: Any = True) -> Job:
        epoch = self.state["epoch"] + 1
        self.append(ev.JobClaimed(worker_id=f"w{epoch}", epoch=epoch, claim_id="c", reason="takeover"))
        return self.decide(answer=answer)

    def decide(self, *happened: fact.Fact, answer: Any = True, **situation: Any) -> Job:
        answers: dict[str, Any] = {}
        items: dict[str, Any] = {}
        while True:
            now = Situation(answers=answers, items=items, **situation)
            decision = decide(self.state, self.shape, happened, self.now(), now)
            if not decision.questions and not decision.unlisted:
                self.state, self.decided = decision.state, list(decision.events)
                return self
            answers |= dict.fromkeys(decision.questions, answer)
            items |= {key: self.items.get(key, ITEMS) for key in decision.unlisted}

    def completes(self, *names: str, changed: dict[str, Any] | None = None) -> Job:
        return self.decide(
            *(
                fact.Completed(of, of.sub_step, changed or {}, 1.0)
                for of in in_progress(self.state)
                if of.sub_step in names
            )
        )

    def item_completes(self, *keys: str) -> Job:
        running = [of for of in in_progress(self.state) if of.item in keys]
        return self.decide(*(fact.Completed(of, of.item, {}, 1.0) for of in running))

    def item_fails(self, *keys: str, error: dict[str, Any] = ERROR) -> Job:
        return self.decide(*(fact.Failed(of, error, 1.0) for of in in_progress(self.state) if of.item in keys))

    def fails(self, *names: str, error: dict[str, Any] = ERROR) -> Job:
        return self.decide(*(fact.Failed(of, error, 1.0) for of in in_progress(self.state) if of.sub_step in names))

    def dies(self) -> Job:
        epoch = self.state["epoch"] + 1
        former = self.state["worker_id"] or ""
        self.append(ev.JobClaimed(worker_id=f"w{epoch}", epoch=epoch, claim_id="c", reason="takeover"))
        return self.decide(fact.Interrupted("owner died", former))

    def handed_back(self) -> Job:
        return self.decide(fact.Interrupted("handed back", self.state["worker_id"] or ""), stopping=True)

    def lives_on(self) -> Job:
        """Resumed and claimed if need be, attempts completing and signals coming, until it ends or stops."""
        if self.state["worker_id"] is None:
            self.claim()
        else:
            self.decide()
        for _ in range(LIFE_STEPS_MAX):
            if self.state["status"] != "running":
                return self
            running = in_progress(self.state)
            if not running:
                due = next_due(self.state, self.state["recorded_at"])
                assert due or self.is_signalled(), f"the job hangs: {self.statuses()}"
                self.state = self.state.copy()
                self.state["recorded_at"] = due or self.state["recorded_at"]
            self.decide(*(fact.Completed(of, None, {}, 1.0) for of in running))
        raise AssertionError("the job goes on for ever")

    def is_signalled(self) -> bool:
        """Whether a sub-step waits for a signal, which then comes."""
        waits = [self.of(key)["wait"] for key in self.shape.sub_steps]
        names = {wait["signal"] for wait in waits if wait and wait["signal"]}
        return bool(self.append(*(ev.SignalReceived(name=name, signal_id=f"s{name}") for name in names)))

    def of(self, key: str) -> Any:
        return sub_step_of(self.state, key)

    def statuses(self) -> dict[str, str]:
        return {key: self.of(key)["status"] for key in self.shape.sub_steps}


def types(events: Sequence[EventData]) -> list[str]:
    return [event.type() for event in events]


def assert_indexes_hold(state: State) -> None:
    """What the state keeps for deciding is what its sub-steps say."""
    shape = Shape.of(state["plan"])
    for name, phase in state["phases"].items():
        steps = phase["sub_steps"]
        edges = {
            step: {*shape.sub_steps[key_of(name, step)]["after"], *shape.sub_steps[key_of(name, step)]["needs"]}
            for step in steps
        }
        open_edges = {
            step: sum(sub_step_of(state, edge)["status"] not in SETTLED for edge in edges[step]) for step in steps
        }
        assert phase["open_edges"] == {step: count for step, count in open_edges.items() if count}
        assert phase["unsettled"] == sum(step["status"] not in SETTLED for step in steps.values())
        assert set(phase["ready"]) == {
            step for step in steps if steps[step]["status"] == "pending" and not open_edges[step]
        }
        for index, statuses in (
            ("in_progress", {"in_progress"}),
            ("failed", {"failed"}),
            ("suspended", {"retrying", "interrupted", "waiting"}),
        ):
            assert set(phase[index]) == {step for step in steps if steps[step]["status"] in statuses}  # type: ignore[literal-required]
    settled = sum(sub_step_of(state, key)["status"] in SETTLED for key in shape.sub_steps)
    assert (state["done"], state["total"]) == (settled, len(shape.sub_steps))
