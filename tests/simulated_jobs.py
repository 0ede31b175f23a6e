"""Logs of jobs whose plan and whose luck hypothesis draws, made by the decider alone: no store, no handlers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import strategies as st

from steplog.eventstore import events as ev
from steplog.eventstore.events import Event
from steplog.projections.plan import Plan
from steplog.projections.state import State
from steplog.testing.strategies import histories_of, json_values

Draw = Callable[[st.SearchStrategy[Any]], Any]

BOOLEANS = st.booleans()
CHANGES = st.sampled_from([{}, {}, {"a": 1}, {"a": 2, "b": [1]}, {"c": None}])
POLICIES = st.sampled_from(["retry", "retry", "hold", "fail"])
SMALL = st.integers(1, 3)
WAITS = st.sampled_from(
    [
        *[{}] * 6,
        {"wait": {"kind": "sleep", "signal": None, "seconds": 2.0}},
        {"wait": {"kind": "signal", "signal": "go", "seconds": None}},
        {"wait": {"kind": "signal", "signal": "go", "seconds": 3.0}},
        {"wait": {"kind": "signal", "signal": "go", "seconds": 3.0}, "default": "nobody"},
    ]
)
FAN_OUTS = st.sampled_from([*[{}] * 4, {"map": {"parallel": 1}}, {"map": {"parallel": 3}}])
COMPENSATIONS = st.sampled_from(
    [
        *[{}] * 4,
        {"compensate": {"retry": {"attempts": 2, "wait_s": 1.0, "factor": 2.0, "wait_s_max": 9.0, "jitter": 0.5}}},
    ]
)
COMPENSATE_ON = st.sampled_from([{}, {"compensate_on": ["cancelled", "failed"]}])
DEADLINES = st.sampled_from([*[{}] * 8, {"deadline_s": 4.0}])
EDGES = st.lists(st.integers(0, 11), unique=True, max_size=3)


@dataclass(frozen=True)
class SimulatedLog:
    """Everything that was recorded, and the state the last decision foresaw."""

    events: list[Event]
    foreseen: State


@st.composite
def simulated_logs(draw: Draw) -> SimulatedLog:
    """The log of a job run to its end, to where it stopped, or cut off."""
    plan = dict(draw(plans()))
    created = ev.JobCreated(workflow="simulated", workflow_version="1", plan=plan, context={"a": 0})
    history = draw(histories_of(created, lambda key: json_values, CHANGES))
    return SimulatedLog(history.events, history.state)


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
                    **(draw(WAITS) or draw(FAN_OUTS)),
                    **draw(COMPENSATIONS),
                    **draw(DEADLINES),
                }
            )
            earlier.append(f"p{phase}/s{number}")
        limit = {"parallel": draw(SMALL)} if draw(BOOLEANS) else {}
        phases.append({"name": f"p{phase}", "sub_steps": steps, **limit})
    return cast("Plan", {"phases": phases, **draw(DEADLINES), **draw(COMPENSATE_ON)})
