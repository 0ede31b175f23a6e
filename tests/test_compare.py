"""Two jobs of one workflow beside each other: what is chance counts not, and the first divergence is found."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from shown_jobs import TIMEOUT, Timed, after, claimed, completed, created, events_of, failed, started, step_plan
from simulated_jobs import SimulatedLog, simulated_logs

from steplog.eventstore import events as ev
from steplog.eventstore.events import Event
from steplog.projections.compare import OWNERSHIP, Comparison, compare

TWO = {"phases": [{"name": "main", "sub_steps": [step_plan("left"), step_plan("right")]}]}
PHASE: Timed = (0.0, ev.PhaseStarted(phase="main"))
LEFT, RIGHT = started(0.0, "main/left"), started(0.0, "main/right")
LEFT_DONE, RIGHT_DONE = completed(1.0, "main/left", 1.0, result=1), completed(2.0, "main/right", 2.0, result=2)
END: list[Timed] = [(3.0, ev.PhaseCompleted(phase="main")), (3.0, ev.JobCompleted())]
STRAIGHT: list[Timed] = [created(TWO), claimed(), PHASE, LEFT, RIGHT, LEFT_DONE, RIGHT_DONE, *END]


def compared(a: list[Timed], b: list[Timed]) -> Comparison:
    return compare(events_of(a), events_of(b))


def divergence(a: list[Timed], b: list[Timed]) -> Any:
    return compared(a, b)["divergence"]


def test_the_order_of_siblings_times_and_workers_are_no_divergence() -> None:
    claim = (0.0, ev.JobClaimed(worker_id="another", epoch=7, claim_id="x", reason="first"))
    later = completed(9.0, "main/right", 8.0, result=2), completed(9.5, "main/left", 9.0, result=1)
    progress: Timed = (1.0, ev.SubStepProgressed(phase="main", sub_step="left", attempt=1, done=1))
    other = [created(TWO, key="other"), claim, PHASE, RIGHT, LEFT, progress, *later, *END]
    assert compared(STRAIGHT, other) == {"given": [], "divergence": None, "events": {"a": 9, "b": 10}}


def test_another_result_is_the_divergence_with_what_differs() -> None:
    other = [*STRAIGHT[:6], completed(2.0, "main/right", 2.0, result=[3]), *END]
    found = divergence(STRAIGHT, other)
    assert found["place"] == "main/right"
    assert (found["a"]["version"], found["b"]["version"]) == (7, 7)
    assert found["differences"] == [{"path": ["result"], "a": 2, "b": [3]}]


def test_another_event_is_the_divergence() -> None:
    found = divergence(STRAIGHT, [*STRAIGHT[:5], failed(1.0, "main/left", 1.0, TIMEOUT)])
    assert found["place"] == "main/left"
    assert (found["a"]["type"], found["b"]["type"]) == ("SubStepCompleted", "SubStepFailed")


def test_of_several_divergences_the_first_counts_though_it_shows_late() -> None:
    left, right = completed(9.0, "main/left", 1.0, result="x"), completed(1.0, "main/right", 1.0, result="y")
    found = divergence(STRAIGHT, [*STRAIGHT[:5], right, left, *END])
    assert (found["place"], found["a"]["version"]) == ("main/left", 6)


def test_a_take_over_is_a_divergence_where_the_other_job_had_none() -> None:
    claim: Timed = (1.0, ev.JobClaimed(worker_id="w", epoch=2, claim_id="d", reason="takeover"))
    found = divergence([*STRAIGHT[:5], claim, *STRAIGHT[5:]], STRAIGHT)
    assert (found["place"], found["a"]["type"], found["b"]) == (OWNERSHIP, "JobClaimed", None)


def test_what_a_job_has_not_done_yet_is_no_divergence() -> None:
    assert divergence(STRAIGHT, STRAIGHT[:5]) is None
    assert divergence(STRAIGHT[:5], STRAIGHT) is None


def test_a_job_that_ended_without_it_parts_there() -> None:
    cancelled = [*STRAIGHT[:5], (1.0, ev.JobCancelled(by="anna"))]
    found = divergence(STRAIGHT, cancelled)
    assert (found["place"], found["a"]["type"], found["b"]) == ("main/left", "SubStepCompleted", None)


def test_what_the_jobs_were_given_is_told_apart_from_what_they_did() -> None:
    a = [created(TWO, input={"name": "soup"}), *STRAIGHT[1:]]
    b = [created(TWO, input={"name": "stew"}), *STRAIGHT[1:]]
    assert compared(a, b)["given"] == [{"path": ["input", "name"], "a": "soup", "b": "stew"}]
    assert compared(a, b)["divergence"] is None


def test_where_a_traceback_points_to_is_no_divergence() -> None:
    a, b = ({**TIMEOUT, "traceback": text} for text in ("line 1", "line 2"))
    begun = STRAIGHT[:5]
    assert divergence([*begun, failed(1.0, "main/left", 1.0, a)], [*begun, failed(1.0, "main/left", 1.0, b)]) is None


def test_a_retry_at_another_time_is_no_divergence() -> None:
    retry = (ev.SubStepRetryScheduled(phase="main", sub_step="left", attempt=2, retry_at=after(at)) for at in (3, 4))
    begun = [*STRAIGHT[:5], failed(1.0, "main/left", 1.0, TIMEOUT)]
    a, b = ([*begun, (1.0, event)] for event in retry)
    assert divergence(a, b) is None


@given(simulated_logs(), st.data())
def test_a_job_parts_from_itself_nowhere_and_from_a_changed_copy_where_it_was_changed(
    log: SimulatedLog, data: st.DataObject
) -> None:
    assert compare(log.events, log.events)["divergence"] is None
    completions = [at for at, event in enumerate(log.events) if event.type == "SubStepCompleted"]
    if completions:
        at = data.draw(st.sampled_from(completions))
        event = log.events[at]
        changed: list[Event] = list(log.events)
        changed[at] = event._replace(data={**event.data, "result": "changed"})
        found = compare(log.events, changed)["divergence"]
        assert found is not None
        assert found["a"] is not None
        assert found["a"]["version"] == event.version
        assert [each["path"] for each in found["differences"]] == [["result"]]
