"""The timeline: attempts as spans, waits, skips, interruptions, and the gaps in which nobody ran the job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import dropwhile, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown_jobs import (
    HALF_WAY,
    TIMEOUT,
    Timed,
    after,
    claimed,
    completed,
    created,
    events_of,
    failed,
    started,
    step_plan,
)
from simulated_jobs import SimulatedLog, simulated_logs

from steplog.eventstore import events as ev
from steplog.eventstore.errors import DamagedLog, JobNotFound
from steplog.eventstore.events import Event
from steplog.projections.evolve import fold
from steplog.projections.fan_out import counts_of
from steplog.projections.state import ENDED, SETTLED
from steplog.projections.timeline import SubStepLine, Timeline, timeline

WORK: dict[str, Any] = {"phase": "main", "sub_step": "work"}
ONE = {"phases": [{"name": "main", "sub_steps": [step_plan("work")]}]}
BEGUN: list[Timed] = [created(ONE), claimed(), (0.0, ev.PhaseStarted(phase="main")), started(0.0, "main/work")]
FAILED = failed(1.0, "main/work", 1.0, TIMEOUT)
RETRY: Timed = (1.0, ev.SubStepRetryScheduled(**WORK, attempt=2, retry_at=after(3.0)))


def taken_over(seconds: float) -> list[Timed]:
    claim = ev.JobClaimed(worker_id="other", epoch=2, claim_id="d", reason="takeover")
    interrupted = ev.SubStepInterrupted(**WORK, attempt=1, cause="owner died", worker_id="worker")
    return [(seconds, claim), (seconds, interrupted)]


def shown(facts: Iterable[Timed], now: float | None = None, **known: Any) -> Timeline:
    return timeline(events_of(facts), None if now is None else after(now), **known)


def lines(shown: Timeline) -> dict[str, SubStepLine]:
    return {f"{phase['name']}/{line['name']}": line for phase in shown["phases"] for line in phase["sub_steps"]}


def work(facts: Iterable[Timed], now: float | None = None, **known: Any) -> SubStepLine:
    return lines(shown(facts, now, **known))["main/work"]


def gaps(of: Timeline) -> list[tuple[str, str, str | None]]:
    """The gaps but for the one before the first claim."""
    return [(gap["cause"], gap["started_at"], gap["ended_at"]) for gap in of["gaps"][1:]]


# --- sub-steps -------------------------------------------------------------------------------------------------------


def test_an_attempt_reaches_from_its_start_to_its_outcome() -> None:
    (attempt,) = work([*BEGUN, completed(2.5, "main/work", 2.5)])["attempts"]
    assert (attempt["number"], attempt["status"]) == (1, "completed")
    assert (attempt["started_at"], attempt["ended_at"]) == (after(0), after(2.5))


def test_an_attempt_in_progress_has_no_end_and_the_edge_is_now() -> None:
    at_work = shown(BEGUN, now=9.0)
    assert lines(at_work)["main/work"]["attempts"][0]["ended_at"] is None
    assert (at_work["edge_at"], at_work["live"]) == (after(9.0), True)


def test_the_past_ends_with_its_last_event() -> None:
    at_work = shown(BEGUN)
    assert (at_work["edge_at"], at_work["live"]) == (after(0), False)


def test_a_failure_keeps_its_error_and_the_wait_for_the_next_attempt() -> None:
    line = work([*BEGUN, FAILED, RETRY])
    assert line["attempts"][0]["error"] == {"type": "TimeoutError", "message": "slow"}
    (wait,) = line["waits"]
    assert (wait["kind"], wait["due_at"], wait["started_at"], wait["ended_at"]) == ("retry", after(3), after(1), None)


def test_a_wait_ends_where_the_next_attempt_begins() -> None:
    line = work([*BEGUN, FAILED, RETRY, started(3.2, "main/work", 2)])
    assert line["waits"][0]["ended_at"] == after(3.2)
    assert [attempt["number"] for attempt in line["attempts"]] == [1, 2]


@pytest.mark.parametrize("wait", [{"kind": "sleep", "until": after(60)}, {"kind": "signal", "signal": "approved"}])
def test_what_waits_without_an_attempt_is_no_attempt(wait: dict[str, Any]) -> None:
    facts = [*BEGUN[:3], (0.0, ev.SubStepWaiting(**WORK, **wait)), completed(60.0, "main/work", 0.0)]
    line = work(facts)
    assert line["attempts"] == []
    assert [(of["kind"], of["signal"], of["ended_at"]) for of in line["waits"]] == [
        (wait["kind"], wait.get("signal"), after(60))
    ]
    assert [mark["kind"] for mark in line["marks"]] == ["completed"]


def test_a_skip_says_why() -> None:
    line = lines(shown(HALF_WAY))["phase2/website"]
    assert [(mark["kind"], mark["at"], mark["reason"]) for mark in line["marks"]] == [
        ("skipped", after(8.1), "no code_files")
    ]


def test_attempts_before_a_reset_stay() -> None:
    reset = ev.SubStepReset(sub_steps=["main/work"], by="anna", reason="once more")
    again = ev.SubStepStarted(**WORK, generation=2, attempt=2, idempotency_key="k")
    facts: list[Timed] = [*BEGUN, FAILED, RETRY, (2.0, reset), (2.0, again)]
    line = work(facts)
    assert [(of["number"], of["generation"], of["status"]) for of in line["attempts"]] == [
        (1, 1, "failed"),
        (2, 2, "in_progress"),
    ]
    assert line["waits"][0]["ended_at"] == after(2.0)
    assert [(mark["kind"], mark["reason"]) for mark in line["marks"]] == [("reset", "once more")]


def test_a_late_outcome_is_a_mark_and_moves_nothing() -> None:
    late = ev.LateOutcome(**WORK, attempt=1, outcome="completed", seconds=1.0)
    line = work([*BEGUN, FAILED, (4.0, late)])
    assert line["attempts"][0]["status"] == "failed"
    assert [mark["kind"] for mark in line["marks"]] == ["late"]


def test_what_an_earlier_plan_had_stays_in_sight() -> None:
    other = {"phases": [{"name": "main", "sub_steps": [step_plan("other")]}]}
    adopted = ev.PlanAdopted(plan=other, workflow_version="2", differences=[], by="anna")
    found = lines(shown([*BEGUN, completed(1.0, "main/work", 1.0), (2.0, adopted)]))
    assert list(found) == ["main/other", "main/work"]
    assert found["main/work"]["status"] is None
    assert len(found["main/work"]["attempts"]) == 1


# --- gaps ------------------------------------------------------------------------------------------------------------


def test_a_crash_leaves_a_gap_from_the_owners_last_event_to_the_take_over() -> None:
    progress: Timed = (2.0, ev.SubStepProgressed(**WORK, attempt=1, done=1))
    crashed = shown([*BEGUN, progress, *taken_over(12.0)])
    assert gaps(crashed) == [("crashed", after(2.0), after(12.0))]
    (attempt,) = lines(crashed)["main/work"]["attempts"]
    assert (attempt["status"], attempt["ended_at"], attempt["reason"]) == ("interrupted", after(2.0), "owner died")


@pytest.mark.parametrize(
    "event",
    [
        ev.SignalReceived(name="go", signal_id="s"),
        ev.JobPauseRequested(by="anna"),
        ev.ContextChanged(set={"a": 1}, by="anna"),
    ],
)
def test_what_others_append_is_no_sign_of_the_owners_life(event: ev.EventData) -> None:
    assert gaps(shown([*BEGUN, (5.0, event), *taken_over(9.0)])) == [("crashed", after(0.0), after(9.0))]


def test_a_job_whose_process_is_gone_has_an_open_gap_and_a_still_edge() -> None:
    gone = shown([*BEGUN, FAILED, RETRY], now=500.0, stalled=True)
    assert gaps(gone) == [("crashed", after(1.0), None)]
    assert (gone["edge_at"], gone["live"], gone["status"]) == (after(1.0), False, "stalled")


def test_each_crash_leaves_its_own_gap() -> None:
    again = ev.SubStepStarted(**WORK, attempt=2, idempotency_key="k")
    claim = ev.JobClaimed(worker_id="third", epoch=3, claim_id="e", reason="takeover")
    interrupted = ev.SubStepInterrupted(**WORK, attempt=2, cause="owner died", worker_id="other")
    crashed = shown([*BEGUN, *taken_over(2.0), (2.5, again), (8.0, claim), (8.0, interrupted)])
    assert gaps(crashed) == [("crashed", after(0), after(2)), ("crashed", after(2.5), after(8))]
    assert [of["ended_at"] for of in lines(crashed)["main/work"]["attempts"]] == [after(0), after(2.5)]


def test_a_job_that_was_handed_back_did_not_crash() -> None:
    interrupted = ev.SubStepInterrupted(**WORK, attempt=1, cause="handed back", worker_id="worker")
    facts: list[Timed] = [*BEGUN, (2.0, interrupted), (2.0, ev.JobReleased(reason="handed back"))]
    claim = ev.JobClaimed(worker_id="other", epoch=2, claim_id="d", reason="wake")
    back = shown([*facts, (5.0, claim)])
    assert gaps(back) == [("queued", after(2.0), after(5.0))]
    assert lines(back)["main/work"]["attempts"][0]["ended_at"] == after(2.0)


def test_a_job_that_waits_for_a_person_has_a_gap_with_the_reason() -> None:
    error = {"type": "E", "message": "m"}
    facts: list[Timed] = [*BEGUN, FAILED, (1.0, ev.JobFailed(error=error, phase="main", sub_step="work"))]
    stopped = shown(facts, now=99.0)
    assert (stopped["gaps"][1]["cause"], stopped["gaps"][1]["reason"]) == ("failed", "m")
    assert (stopped["edge_at"], stopped["live"]) == (after(1.0), False)
    claim = ev.JobClaimed(worker_id="other", epoch=2, claim_id="d", reason="resume")
    gone_on = shown([*facts, (7.0, ev.JobResumed(by="anna")), (8.0, claim)])
    assert gaps(gone_on) == [("failed", after(1.0), after(8.0))]


def test_a_job_that_ended_has_no_gap_behind_its_end() -> None:
    facts: list[Timed] = [*BEGUN, completed(1.0, "main/work", 1.0), (1.0, ev.JobCompleted())]
    assert gaps(shown(facts, now=99.0)) == []


# --- any history -----------------------------------------------------------------------------------------------------


def test_a_damaged_log_is_refused() -> None:
    with pytest.raises(DamagedLog):
        timeline([event for event in events_of(BEGUN) if event.version != 2])
    with pytest.raises(JobNotFound):
        timeline([])


def is_taking_over(events: Sequence[Event]) -> bool:
    """Whether the log is cut inside the append of a take-over: what its dead owner ran is not yet interrupted in it."""
    before = dropwhile(lambda event: event.type == "SubStepInterrupted", reversed(events))
    return next(before).type == "JobClaimed"


@given(simulated_logs(), st.data())
def test_the_timeline_agrees_with_the_fold_at_every_version(log: SimulatedLog, data: st.DataObject) -> None:
    events = log.events[: data.draw(st.integers(1, len(log.events)))]
    state, shown = fold(events), timeline(iter(events))
    assert (shown["version"], shown["status"]) == (state["version"], state["status"])
    for phase in shown["phases"]:
        for line in phase["sub_steps"]:
            of = state["phases"][phase["name"]]["sub_steps"][line["name"]]
            assert line["status"] == of["status"]
            running = [attempt for attempt in line["attempts"] if attempt["ended_at"] is None]
            if of["items"] is None:
                undoing = of["compensation"]
                for is_undoing, count in ((False, of["attempts"]), (True, undoing["attempts"] if undoing else 0)):
                    own = [each["number"] for each in line["attempts"] if each["compensation"] is is_undoing]
                    assert own == list(range(1, count + 1))
                assert bool(running) == ("in_progress" in (of["status"], undoing and undoing["status"]))
            else:
                assert line["items"] == counts_of(of["items"])._asdict()
                assert bool(running) >= bool(of["items"]["in_progress"]) or is_taking_over(events)
                assert of["status"] == "in_progress" or not running
            waiting = [wait for wait in line["waits"] if wait["ended_at"] is None]
            assert bool(waiting) == (of["retry_at"] is not None or of["wait"] is not None)
            assert (of["status"] not in SETTLED) or not (running or waiting) or of["compensation"]


@given(simulated_logs(), st.data())
def test_spans_of_one_sub_step_follow_each_other_and_stand_outside_the_gaps(
    log: SimulatedLog, data: st.DataObject
) -> None:
    shown = timeline(log.events[: data.draw(st.integers(1, len(log.events)))])
    edge = shown["edge_at"]
    spans = [(gap["started_at"], gap["ended_at"] or edge) for gap in shown["gaps"]]
    assert spans == sorted(spans)
    assert all(start <= end for start, end in spans)
    assert all(one[1] <= next_[0] for one, next_ in pairwise(spans))
    assert shown["status"] not in ENDED or all(gap["ended_at"] for gap in shown["gaps"])
    for line in lines(shown).values():
        every = [*line["attempts"], *line["waits"]]
        own = sorted((each["started_at"], each["ended_at"] or edge) for each in every)
        assert all(start <= end for start, end in own)
        assert all(one[1] <= next_[0] for one, next_ in pairwise(own))
        for attempt in line["attempts"]:
            start, end = attempt["started_at"], attempt["ended_at"] or edge
            assert not any(gap[0] < end and start < gap[1] for gap in spans)


@given(simulated_logs())
def test_there_is_a_crash_for_every_claim_of_a_job_that_had_an_owner(log: SimulatedLog) -> None:
    crashes, owned = 0, False
    for event in log.events:
        if event.type == "JobClaimed":
            crashes += owned
            owned = True
        owned = owned and event.type not in ("JobParked", "JobFailed", "JobCompleted")
    assert [gap["cause"] for gap in timeline(log.events)["gaps"]].count("crashed") == crashes
