"""What `steplog.testing.strategies` draws: histories that fold, of values that the workflow's types take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from orders_workflow import Order, Progress, charge, safe

from steplog import Workflow
from steplog.engine.values import load
from steplog.projections.evolve import fold
from steplog.testing.strategies import History, histories

approval: Workflow[Any, Any] = Workflow("approval")
asked = approval.wait_for_signal("approved", str, timeout="2d")
approval.sleep("30d", after=[asked])

EAGER = settings(max_examples=5_000, database=None, phases=[Phase.generate])
"""For what is only to be found, not shrunk."""


@given(histories(safe))
def test_a_history_folds_to_its_state(history: History) -> None:
    assert fold(history.events) == history.state
    assert [event.version for event in history.events] == list(range(1, len(history.events) + 1))


@given(histories(safe))
def test_values_are_of_the_declared_types(history: History) -> None:
    load(history.state["input"], Order)
    load(history.state["context"], Progress)
    for event in history.events:
        if event.type == "SubStepCompleted":
            returns = safe.sub_steps[f"{event.data['phase']}/{event.data['sub_step']}"].bindings.returns
            load(event.data.get("result"), returns)


@given(histories(safe, input=st.just(Order(dish="pie")), results={charge: st.just("receipt 7")}))
def test_values_may_be_given(history: History) -> None:
    assert history.state["input"]["dish"] == "pie"
    charged = [
        event for event in history.events if event.type == "SubStepCompleted" and event.data["sub_step"] == "charge"
    ]
    assert {event.data["result"] for event in charged} <= {"receipt 7"}


@pytest.mark.parametrize(
    "wanted", ["JobCompleted", "JobFailed", "SubStepRetryScheduled", "SubStepInterrupted", "LateOutcome"]
)
def test_histories_go_every_way(wanted: str) -> None:
    find(
        histories(safe),
        lambda history: wanted in {event.type for event in history.events},
        settings=EAGER,
    )


@pytest.mark.parametrize("wanted", ["SignalReceived", "JobCompleted", "JobFailed"])
def test_waits_end_by_signal_and_by_time(wanted: str) -> None:
    find(
        histories(approval),
        lambda history: wanted in {event.type for event in history.events},
        settings=EAGER,
    )
