"""Folding a log gives one state, however it is cut, and what is read from that state agrees with the log."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_jobs import SimulatedLog, simulated_logs

from steplog.engine.decider import in_progress
from steplog.eventstore.codec import decode, encode
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.events import Event
from steplog.projections.evolve import as_state, evolve, fold
from steplog.projections.fan_out import counts_of, items_of
from steplog.projections.head import head_of
from steplog.projections.plan import Shape, place_of, split_key
from steplog.projections.readiness import open_edges, sub_step_of
from steplog.projections.resume_point import resume_point
from steplog.projections.snapshot import snapshot
from steplog.projections.state import ENDED, SETTLED, State, SubStepState, current_phase
from steplog.projections.undoing import to_undo

NO_LIMIT = 1 << 40


def canonical(state: State) -> bytes:
    return encode(dict(state), bytes_max=NO_LIMIT)


@given(simulated_logs())
def test_a_stored_state_and_the_tail_after_it_fold_to_what_the_whole_log_folds_to(log: SimulatedLog) -> None:
    whole = canonical(fold(log.events))

    for cut in range(1, len(log.events)):
        stored = as_state(decode(canonical(fold(log.events[:cut]))))
        before = canonical(stored)
        assert canonical(fold(log.events[cut:], stored)) == whole
        assert canonical(stored) == before, f"folding on from version {cut} changed the state it began with"


@given(simulated_logs())
def test_evolving_event_by_event_agrees_and_leaves_every_earlier_state_as_it_was(log: SimulatedLog) -> None:
    state: State | None = None
    seen: list[tuple[State, bytes]] = []
    for event in log.events:
        state = evolve(state, event)
        seen.append((state, canonical(state)))

    assert seen[-1][1] == canonical(fold(log.events))
    assert all(canonical(earlier) == then for earlier, then in seen)


@given(simulated_logs())
def test_the_state_the_decider_foresaw_is_the_fold_of_what_was_recorded(log: SimulatedLog) -> None:
    assert canonical(log.foreseen) == canonical(fold(log.events))


@given(simulated_logs(), st.data())
def test_what_deciding_looks_at_agrees_with_a_look_at_everything(log: SimulatedLog, data: st.DataObject) -> None:
    state = fold(log.events[: data.draw(st.integers(1, len(log.events)))])
    shape = Shape.of(state["plan"])

    for name, phase in state["phases"].items():
        statuses = {step: of["status"] for step, of in phase["sub_steps"].items()}
        pending = {step for step, status in statuses.items() if status == "pending"}
        assert set(phase["ready"]) == {step for step in pending if not open_edges(state, shape, f"{name}/{step}")}
        assert set(phase["failed"]) == {step for step, status in statuses.items() if status == "failed"}
        assert set(phase["in_progress"]) == {step for step, status in statuses.items() if status == "in_progress"}
        assert set(phase["suspended"]) == {
            step for step, status in statuses.items() if status in ("retrying", "interrupted", "waiting")
        }
        for of in phase["sub_steps"].values():
            if of["items"] is not None:
                _examine_items(of)
        assert phase["unsettled"] == sum(status not in SETTLED for status in statuses.values())
    assert state["done"] == sum(sub_step_of(state, key)["status"] in SETTLED for key in shape.sub_steps)
    assert head_of(state).done == snapshot(state)["progress"]["done"] == state["done"]


def _place(event: Event) -> str:
    return place_of(event.data.get("phase", ""), event.data.get("sub_step", ""), event.data.get("item"))


@given(simulated_logs())
def test_a_completed_sub_step_never_starts_again_and_attempts_count_on(log: SimulatedLog) -> None:
    completed: set[str] = set()
    attempts: Counter[str] = Counter()
    for event in log.events:
        key = _place(event)
        if event.type == "SubStepStarted":
            assert key not in completed
            attempts[key] += 1
            assert event.data["attempt"] == attempts[key]
        elif event.type == "SubStepCompleted":
            completed.add(key)


@given(simulated_logs())
def test_nothing_starts_before_what_it_needs_and_the_phases_before_it(log: SimulatedLog) -> None:
    state: State | None = None
    for event in log.events:
        if state is not None and event.type == "SubStepStarted":
            shape = Shape.of(state["plan"])
            key = f"{event.data['phase']}/{event.data['sub_step']}"
            assert not open_edges(state, shape, key)
            assert current_phase(state) == event.data["phase"]
            limit = shape.phases[event.data["phase"]].get("parallel", NO_LIMIT)
            phase = state["phases"][event.data["phase"]]
            assert sum(of.phase == event.data["phase"] for of in in_progress(state)) < limit
            items = phase["sub_steps"][event.data["sub_step"]]["items"]
            if items is not None:
                assert len(items["in_progress"]) < shape.fan_outs[event.data["phase"]][key]["parallel"]
        state = evolve(state, event)


@given(simulated_logs())
def test_the_budget_of_attempts_is_kept_over_crashes(log: SimulatedLog) -> None:
    plan = Shape.of(log.events[0].data["plan"])
    failures: Counter[str] = Counter()
    for event in log.events:
        if event.type == "JobResumed":
            failures.clear()
        if event.type == "SubStepFailed":
            failures[_place(event)] += 1
        if event.type == "SubStepRetryScheduled":
            key = f"{event.data['phase']}/{event.data['sub_step']}"
            assert failures[_place(event)] < plan.sub_steps[key]["retry"]["attempts"]


@given(simulated_logs())
def test_each_signal_is_the_result_of_one_wait_in_the_order_in_which_they_came(log: SimulatedLog) -> None:
    shape = Shape.of(log.events[0].data["plan"])
    waits = {key: wait for waits in shape.waits.values() for key, wait in waits.items() if wait["signal"]}
    sent: list[object] = []
    for event in log.events:
        key = f"{event.data.get('phase')}/{event.data.get('sub_step')}"
        if event.type == "SignalReceived":
            sent.append(event.data.get("payload"))
        elif event.type == "SubStepCompleted" and key in waits:
            assert event.data.get("result") == (sent.pop(0) if sent else shape.sub_steps[key].get("default"))
    left = fold(log.events)["signals"].get("go", [])
    assert [signal["payload"] for signal in left] == sent


@given(simulated_logs())
def test_no_crash_moves_a_deadline(log: SimulatedLog) -> None:
    state: State | None = None
    for event in log.events:
        before, state = state, evolve(state, event)
        if before is None or event.type == "JobResumed":
            continue
        assert state["deadline_at"] == before["deadline_at"]
        for name, phase in before["phases"].items():
            for step, of in phase["sub_steps"].items():
                assert of["deadline_at"] in (None, state["phases"][name]["sub_steps"][step]["deadline_at"])


def _examine_items(group: SubStepState) -> None:
    items = group["items"]
    assert items is not None
    shown = list(items_of(group))
    by_status = Counter(item.state["status"] for item in shown)
    assert set(items["active"]) == set(items["places"]) == {*items["in_progress"], *items["suspended"]}
    assert set(items["in_progress"]) == {item.key for item in shown if item.state["status"] == "in_progress"}
    assert all(items["keys"][place] == key for key, place in items["places"].items())
    assert [items[status] for status in ("completed", "failed", "skipped")] == [
        by_status[status] for status in ("completed", "failed", "skipped")
    ]
    waiting = [item.place for item in shown if item.state["status"] == "pending"]
    assert items["next"] == min(waiting, default=len(shown))
    counts = counts_of(items)
    assert (counts.pending, counts.waiting) == (len(waiting), by_status["retrying"] + by_status["interrupted"])
    assert sum(counts) - counts.total == counts.total == len(shown)


@given(simulated_logs(), st.data())
def test_the_resume_point_names_everything_open_in_the_first_phase_with_anything_left_once(
    log: SimulatedLog, data: st.DataObject
) -> None:
    state = fold(log.events[: data.draw(st.integers(1, len(log.events)))])
    point = resume_point(state)

    named = [each["sub_step"] for each in (*point["run"], *point["waiting"])]
    current = None if state["status"] in ENDED else current_phase(state)
    shape = Shape.of(state["plan"])
    phases = list(shape.of_phase)
    unsettled = [key for key in shape.sub_steps if sub_step_of(state, key)["status"] not in SETTLED]
    if state["undoing"]:  # what is left then is to be undone
        assert named == list(to_undo(state, shape))
        return
    assert sorted(named) == sorted(key for key in unsettled if split_key(key)[0] == point["phase"])
    assert (point["phase"] is None) == (current is None)
    if current is not None:
        passed_over = phases[phases.index(current) : phases.index(point["phase"])]
        assert not any(split_key(key)[0] in passed_over for key in unsettled)


@given(simulated_logs(), st.data())
def test_a_fold_refuses_a_gap_and_a_repetition(log: SimulatedLog, data: st.DataObject) -> None:
    events: list[Event] = list(log.events)
    at = data.draw(st.integers(1, len(events) - 1))
    broken = events[:at] + (events[at + 1 :] if data.draw(st.booleans()) and at + 1 < len(events) else events[at - 1 :])
    with pytest.raises(DamagedLog) as refused:
        fold(broken)
    assert refused.value.version in (at, at + 2)
