"""Logs of jobs whose plan and whose luck hypothesis draws, made by the decider alone: no store, no handlers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from steplog.engine import facts as fact
from steplog.engine.decider import decide, in_progress, next_due
from steplog.engine.facts import AttemptId, Fact, Situation
from steplog.eventstore import events as ev
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.codec import decode
from steplog.eventstore.events import Event, EventData, NewEvent
from steplog.projections.evolve import evolve
from steplog.projections.plan import Plan, Shape
from steplog.projections.state import State
from steplog.testing.clock import VirtualClock

Draw = Callable[[st.SearchStrategy[Any]], Any]

SITUATION = Situation(interruptions_max=3)
STEPS_MAX = 30

BOOLEANS = st.booleans()
KINDS = st.sampled_from(["completed", "completed", "completed", "failed", "skipped", "checkpoint", "progress", "stale"])
RESULTS = st.sampled_from([None, 0, -0.5, "text", [1, {"a": []}], {"b": None, "a": {"é": True}}])
CHANGES = st.sampled_from([{}, {}, {"a": 1}, {"a": 2, "b": [1]}, {"c": None}])
SPREADS = st.sampled_from([0.0, 0.5, 0.99])
ANSWERS = st.sampled_from([True, True, "no"])
CRASHES = st.sampled_from([False] * 9 + [True])
DELAYS_S = st.sampled_from([0.5, 20.0])
POLICIES = st.sampled_from(["retry", "retry", "hold", "fail"])
SMALL = st.integers(1, 3)
EDGES = st.lists(st.integers(0, 11), unique=True, max_size=3)


@dataclass(frozen=True)
class SimulatedLog:
    """Everything that was recorded, and the state the last decision foresaw."""

    events: list[Event]
    foreseen: State


@st.composite
def simulated_logs(draw: Draw) -> SimulatedLog:
    """The log of a job run to its end, to where it stopped, or cut off."""
    return _Simulation(draw, draw(plans())).run()


@st.composite
def plans(draw: Draw) -> Plan:
    """One to three phases of up to four sub-steps, with edges backwards, policies and conditions."""
    phases: list[Any] = []
    earlier: list[str] = []
    for phase in range(draw(SMALL)):
        steps: list[Any] = []
        for number in range(draw(SMALL)):
            edges = [earlier[place] for place in draw(EDGES) if place < len(earlier)]
            needs = [edge for edge in edges if draw(BOOLEANS)]
            steps.append(
                {
                    "name": f"s{number}",
                    "after": [edge for edge in edges if edge not in needs],
                    "needs": needs,
                    "defaults": [need for need in needs if draw(BOOLEANS)],
                    "optional": draw(BOOLEANS),
                    "when": draw(BOOLEANS),
                    "on_interrupt": draw(POLICIES),
                    "retry": {"attempts": draw(SMALL), "wait_s": 1.0, "factor": 2.0, "wait_s_max": 9.0, "jitter": 0.5},
                }
            )
            earlier.append(f"p{phase}/s{number}")
        limit = {"parallel": draw(SMALL)} if draw(BOOLEANS) else {}
        phases.append({"name": f"p{phase}", "sub_steps": steps, **limit})
    return {"phases": phases}


class _Simulation:
    def __init__(self, draw: Draw, plan: Plan) -> None:
        self.draw = draw
        self.clock = VirtualClock()
        self.shape = Shape.of(plan)
        self.events: list[Event] = []
        self.position = Position()
        self.epoch = 0
        self.state: Any = None
        self.foreseen: Any = None
        self.job_id = self.clock.new_id()
        created = ev.JobCreated(workflow="simulated", workflow_version="1", plan=dict(plan), context={"a": 0})
        self.record([created])
        self.claim()

    def run(self) -> SimulatedLog:
        self.decided([])
        for _ in range(STEPS_MAX):
            if self.state["status"] not in ("running", "parked", "failed"):
                break
            self.step()
        return SimulatedLog(self.events, self.foreseen)

    def step(self) -> None:
        if self.state["status"] != "running":
            if not self.draw(BOOLEANS):
                return
            self.record([ev.JobResumed(by="anna")])
            self.claim()
            self.decided([])
            return
        running = in_progress(self.state)
        if running and self.draw(CRASHES):
            self.claim()
            self.decided([fact.Interrupted("owner died", "former")])
        elif running:
            self.decided([self.outcome(of) for of in running if self.draw(BOOLEANS)])
        else:
            self.clock.advance(self.draw(DELAYS_S) if next_due(self.state, self.now()) else 1.0)
            self.decided([])

    def outcome(self, of: AttemptId) -> Fact:
        match self.draw(KINDS):
            case "completed":
                return fact.Completed(of, self.draw(RESULTS), self.draw(CHANGES), 1.0)
            case "failed":
                error = {"type": "E", "message": "m", "traceback": "t", "retryable": self.draw(BOOLEANS)}
                return fact.Failed(of, error, 1.0, self.draw(SPREADS))
            case "skipped":
                return fact.SkipRaised(of, "nothing to do")
            case "checkpoint":
                return fact.CheckpointReached(of, self.draw(RESULTS), self.draw(CHANGES))
            case "progress":
                return fact.Progressed(of, 1, 2, None)
            case _:
                stale = AttemptId(of.phase, of.sub_step, of.generation, of.attempt + 1)
                return fact.Completed(stale, None, {}, 1.0)

    def decided(self, happened: list[Fact]) -> None:
        decision = decide(self.state, self.shape, happened, self.now(), SITUATION)
        answers: dict[str, Any] = {}
        while decision.questions:
            answers |= {key: self.draw(ANSWERS) for key in decision.questions}
            decision = decide(self.state, self.shape, happened, self.now(), SITUATION._replace(answers=answers))
        self.record(decision.events)
        self.foreseen = decision.state

    def claim(self) -> None:
        self.epoch += 1
        claimed = ev.JobClaimed(worker_id=f"w{self.epoch}", epoch=self.epoch, claim_id="c", reason="takeover")
        self.record([claimed])

    def record(self, data: list[EventData] | Any) -> None:
        sealed = seal(self.job_id, self.position, data, self.now(), self.clock)
        self.position = end_of(sealed, self.position)
        for event in sealed:
            self.events.append(as_read(event))
            self.state = evolve(self.state, self.events[-1])

    def now(self) -> str:
        return max(self.clock.now(), self.position.recorded_at)


def as_read(event: NewEvent) -> Event:
    """The event as a store hands it out after a restart."""
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
