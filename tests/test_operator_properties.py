"""Whatever a person does to a job, at any moment of any life, is allowed or refused with what is; and it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operated_jobs import ANNA, Job, assert_indexes_hold
from simulated_jobs import SimulatedLog, simulated_logs

from steplog.engine import actions
from steplog.engine.allowed import allowed_actions, allowed_sub_step_actions
from steplog.engine.errors import ActionRefused
from steplog.eventstore.events import Event, EventData
from steplog.projections.context_rules import UNSET, writes_of
from steplog.projections.evolve import fold
from steplog.projections.plan import key_of_place
from steplog.projections.readiness import has_begun, sub_step_of
from steplog.projections.state import STOPPED, State

AT = "2030-01-01T00:00:00.000000Z"

Act = Callable[[State, list[Event]], list[EventData]]

ON_THE_JOB: dict[str, Act] = {
    "pause": lambda state, log: actions.pause(state, ANNA),
    "resume": lambda state, log: actions.resume(state, ANNA),
    "cancel": lambda state, log: actions.cancel(state, ANNA),
    "retry": lambda state, log: actions.retry_all(state, ANNA, AT),
    "set": lambda state, log: actions.set_context(state, ANNA, {"a": 7}, ["b"]),
    "edit-input": lambda state, log: actions.edit_input(state, ANNA, None),
    "signal": lambda state, log: actions.signal(state, ANNA, "go", None, "s1"),
}
ON_A_SUB_STEP: dict[str, Callable[[State, list[Event], str], list[EventData]]] = {
    "retry": lambda state, log, key: actions.retry(state, key, ANNA, AT),
    "skip": lambda state, log, key: actions.skip(state, key, ANNA),
    "complete": lambda state, log, key: actions.complete(state, key, ANNA, 1),
    "fail": lambda state, log, key: actions.fail(state, key, ANNA),
    "reset": lambda state, log, key: actions.reset(state, key, ANNA, written(log), group="g"),
}


def written(log: list[Event]) -> dict[tuple[str, str], Any]:
    return {(field, writer): value for event in log for field, writer, value in writes_of(event)}


@st.composite
def moments(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[list[Event], State]:
    """A log cut anywhere, and its state."""
    log: SimulatedLog = draw(simulated_logs())
    events = log.events[: draw(st.integers(1, len(log.events)))]
    return events, fold(events)


@given(moments())
def test_what_is_allowed_is_exactly_what_is_not_refused(moment: tuple[list[Event], State]) -> None:
    log, state = moment
    allowed = allowed_actions(state)
    for action, act in ON_THE_JOB.items():
        if action in allowed:
            assert act(state, log)
        else:
            with pytest.raises(ActionRefused) as refused:
                act(state, log)
            assert (refused.value.allowed, refused.value.action) == (allowed, action)
    for key in (f"{phase}/{name}" for phase in state["phases"] for name in state["phases"][phase]["sub_steps"]):
        allowed = allowed_sub_step_actions(state, key)
        for action, act_on in ON_A_SUB_STEP.items():
            if action in allowed:
                assert act_on(state, log, key)
            else:
                with pytest.raises(ActionRefused) as refused:
                    act_on(state, log, key)
                assert (refused.value.allowed, refused.value.sub_step) == (allowed, key)


@given(moments(), st.data())
def test_after_whatever_is_allowed_the_job_comes_to_an_end_or_to_a_person(
    moment: tuple[list[Event], State], data: st.DataObject
) -> None:
    log, state = moment
    before = fold(log)
    job = living(state)
    for _ in range(data.draw(st.integers(1, 3))):
        job.append(*data.draw(st.sampled_from(possible(job.state, log))))
        assert_indexes_hold(job.state)
    assert state == before
    if job.state["status"] in STOPPED:
        job.append(*actions.resume(job.state, ANNA, accept=True))
    if job.state["status"] not in ("completed", "cancelled"):
        job.lives_on()
        assert_indexes_hold(job.state)


def living(state: State) -> Job:
    job = Job(dict(state["plan"]))
    job.state = state
    return job


def possible(state: State, log: list[Event]) -> list[list[EventData]]:
    found = [ON_THE_JOB[action](state, log) for action in allowed_actions(state) if action in ON_THE_JOB]
    for phase in state["phases"]:
        for name in state["phases"][phase]["sub_steps"]:
            key = f"{phase}/{name}"
            found += [ON_A_SUB_STEP[action](state, log, key) for action in allowed_sub_step_actions(state, key)]
    return found or [[]]


@given(moments(), st.data())
def test_a_reset_leaves_nothing_behind_of_what_it_names(moment: tuple[list[Event], State], data: st.DataObject) -> None:
    log, state = moment
    keys = [f"{phase}/{name}" for phase in state["phases"] for name in state["phases"][phase]["sub_steps"]]
    key = data.draw(st.sampled_from(keys))
    if "reset" not in allowed_sub_step_actions(state, key):
        return
    job = living(state)
    (reset,) = (
        event for event in job.append(*ON_A_SUB_STEP["reset"](state, log, key)) if event.type() == "SubStepReset"
    )
    names = set(reset.as_data()["sub_steps"])
    assert key in names
    for name in names:
        assert sub_step_of(job.state, name)["status"] == "pending"
        assert sub_step_of(job.state, name)["generation"] == sub_step_of(state, name)["generation"] + 1
        assert sub_step_of(job.state, name)["attempts"] == sub_step_of(state, name)["attempts"]
    for name in set(keys) - names:
        assert sub_step_of(job.state, name) == sub_step_of(state, name)
        assert not job.shape.follows(name, key) or not has_begun(sub_step_of(state, name))
    assert job.state["context"] == context_without(log, names)


def context_without(log: list[Event], reset: set[str]) -> dict[str, Any]:
    """The context as the log makes it if these sub-steps had written nothing."""
    context: dict[str, Any] = {}
    for event in log:
        for field, writer, value in writes_of(event):
            if key_of_place(writer) not in reset:
                context[field] = value
    return {field: value for field, value in context.items() if value is not UNSET}
