"""What each action of a person appends, in which states it is refused, and what the refusal names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from operated_jobs import ANNA, ERROR, FLAKY, Job, plan, types
from shown_jobs import step_plan

from steplog.engine import actions
from steplog.engine import facts as fact
from steplog.engine.actions import NAMES_MAX
from steplog.engine.allowed import allowed_actions, allowed_sub_step_actions
from steplog.engine.decider import in_progress
from steplog.engine.errors import ActionRefused
from steplog.eventstore import events as ev
from steplog.eventstore.events import EventData
from steplog.projections.head import head_of
from steplog.projections.state import current_phase

ONE = step_plan("one", retry={"attempts": 2, "wait_s": 60.0, "factor": 1.0, "wait_s_max": 60.0, "jitter": 0.0})
TWO = step_plan("two")
TOLERATED = step_plan("tolerated", optional=True)
LATER = step_plan("later", needs=["p/one"])
HELD = step_plan("held", on_interrupt="hold")
ASKED = step_plan("asked", when=True)


def new(*sub_steps: dict[str, Any], **phases: list[dict[str, Any]]) -> Job:
    return Job(plan(p=list(sub_steps), **phases), context={"mine": 0})


def owned() -> Job:
    return new(ONE, LATER).claim()


def failed() -> Job:
    return owned().fails("one")


def paused() -> Job:
    job = owned().handed_back()
    job.append(*actions.pause(job.state, ANNA))
    return job


def parked() -> Job:
    return new(HELD, TOLERATED).claim().dies()


def completed() -> Job:
    return owned().completes("one").completes("later")


def cancelled() -> Job:
    job = paused()
    job.append(*actions.cancel(job.state, ANNA))
    return job


STATES: dict[str, Callable[[], Job]] = {
    "queued": lambda: owned().handed_back(),
    "running": owned,
    "paused": paused,
    "parked": parked,
    "failed": failed,
    "completed": completed,
    "cancelled": cancelled,
}
ALLOWED = {
    "queued": ["pause", "cancel", "set", "signal", "fork"],
    "running": ["pause", "cancel", "set", "signal", "fork"],
    "paused": ["resume", "cancel", "set", "edit-input", "signal", "fork"],
    "parked": ["resume", "cancel", "retry", "set", "edit-input", "signal", "fork"],
    "failed": ["resume", "cancel", "retry", "set", "edit-input", "signal", "fork"],
    "completed": ["fork"],
    "cancelled": ["fork"],
}


def refusal(act: Callable[[], object]) -> ActionRefused:
    with pytest.raises(ActionRefused) as refused:
        act()
    return refused.value


def written(job: Job, **values: Any) -> dict[tuple[str, str], Any]:
    return {("mine", writer): value for writer, value in {"": 0, **values}.items()}


def reset(job: Job, key: str, **values: Any) -> list[EventData]:
    return actions.reset(job.state, key, ANNA, written(job, **values), group="g")


# --- the job ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATES)
def test_each_state_allows_its_actions(status: str) -> None:
    job = STATES[status]()
    assert job.state["status"] == status
    assert allowed_actions(job.state) == ALLOWED[status]


def test_an_owned_job_is_asked_to_pause_and_one_without_an_owner_pauses() -> None:
    assert types(actions.pause(owned().state, ANNA)) == ["JobPauseRequested"]
    job = owned().handed_back()
    assert types(job.append(*actions.pause(job.state, ANNA))) == ["JobPauseRequested", "JobPaused"]
    assert (job.state["status"], job.state["reason"], job.state["requested"]) == ("paused", ANNA.reason, None)


def test_what_was_asked_for_is_not_asked_for_twice_but_a_pause_may_become_a_cancellation() -> None:
    job = owned()
    job.append(*actions.pause(job.state, ANNA))
    refused = refusal(lambda: actions.pause(job.state, ANNA))
    assert refused.why == "its worker was asked to pause it already"
    assert "cancel" in refused.allowed
    job.append(*actions.cancel(job.state, ANNA))
    assert "pause" not in allowed_actions(job.state)
    assert "cancel" not in allowed_actions(job.state)


def test_what_an_owner_was_asked_for_and_did_not_do_is_done_at_once_when_it_has_gone() -> None:
    job = owned()
    job.append(*actions.pause(job.state, ANNA))
    job.handed_back()
    job.append(*actions.pause(job.state, ANNA))
    assert job.state["status"] == "paused"


@pytest.mark.parametrize("status", ["queued", "paused", "parked", "failed"])
def test_a_job_without_an_owner_is_cancelled_at_once(status: str) -> None:
    job = STATES[status]()
    assert types(job.append(*actions.cancel(job.state, ANNA))) == ["JobCancelRequested", "JobCancelled"]
    assert job.state["status"] == "cancelled"


@pytest.mark.parametrize("status", ["paused", "parked", "failed"])
def test_a_resumed_job_is_in_the_queue_and_runs_to_its_end(status: str) -> None:
    job = STATES[status]()
    job.append(*actions.resume(job.state, ANNA))
    assert job.state["status"] == "queued"
    assert head_of(job.state).wake_at
    assert job.lives_on().state["status"] == "completed"


def test_a_refusal_says_which_state_why_and_what_is_allowed() -> None:
    job = completed()
    refused = refusal(lambda: actions.pause(job.state, ANNA))
    assert str(refused) == (
        f"job {job.state['job_id']} is completed: cannot pause: it has ended: reset a sub-step to open it again, "
        "or fork it; allowed now: fork"
    )
    assert (refused.status, refused.action, refused.allowed_actions) == ("completed", "pause", ["fork"])


def test_the_input_is_edited_only_while_the_job_is_stopped() -> None:
    assert refusal(lambda: actions.edit_input(owned().state, ANNA, 1)).why.startswith("its input is read while it runs")
    job = failed()
    job.append(*actions.edit_input(job.state, ANNA, {"n": 2}))
    assert job.state["input"] == {"n": 2}


def test_a_job_parked_by_a_conflict_waits_for_the_value_or_for_somebody_to_accept() -> None:
    job = new(ONE, TWO).claim().completes("one", changed={"mine": 1}).completes("two", changed={"mine": 2})
    assert (job.state["reason"] or "").startswith("context conflict")
    refused = refusal(lambda: actions.resume(job.state, ANNA))
    assert refused.blocked_by == ["p/two"]
    assert "resume" not in refused.allowed
    assert refusal(lambda: actions.retry_all(job.state, ANNA, job.now())).blocked_by == ["p/two"]
    accepted = actions.resume(job.state, ANNA, accept=True)
    assert types(accepted) == ["JobResumed"]
    job.append(*actions.set_context(job.state, ANNA, {"mine": 3}))
    job.append(*actions.resume(job.state, ANNA))
    assert job.lives_on().state["status"] == "completed"
    assert job.state["context"] == {"mine": 3}


def test_a_field_set_beside_the_conflict_decides_nothing() -> None:
    job = new(ONE, TWO).claim().completes("one", changed={"mine": 1}).completes("two", changed={"mine": 2})
    job.append(*actions.set_context(job.state, ANNA, {"other": 3}))
    assert "resume" not in allowed_actions(job.state)
    job.append(*actions.set_context(job.state, ANNA, {}, ["mine"]))
    assert "resume" in allowed_actions(job.state)


# --- retry -----------------------------------------------------------------------------------------------------------


def test_a_failed_sub_step_runs_again_under_its_generation_and_key() -> None:
    job = failed()
    assert types(job.append(*actions.retry(job.state, "p/one", ANNA, job.now()))) == ["JobResumed"]
    job.claim()
    assert (job.of("p/one")["status"], job.of("p/one")["attempts"], job.of("p/one")["generation"]) == (
        "in_progress", 2, 1,
    )  # fmt: skip


@pytest.mark.parametrize("edit", ["input", "context"])
@pytest.mark.parametrize("same_key", [False, True])
@pytest.mark.parametrize("how", ["retry", "retry of all", "resume"])
def test_after_an_edit_it_begins_a_new_generation_with_the_old_key_only_if_asked(
    edit: str, same_key: bool, how: str
) -> None:
    job = failed()
    key = job.of("p/one")["idempotency_key"]
    by_hand = (
        actions.edit_input(job.state, ANNA, 2) if edit == "input" else actions.set_context(job.state, ANNA, {"mine": 1})
    )
    job.append(*by_hand)
    again = {
        "retry": lambda: actions.retry(job.state, "p/one", ANNA, job.now(), same_key=same_key),
        "retry of all": lambda: actions.retry_all(job.state, ANNA, job.now(), same_key=same_key),
        "resume": lambda: actions.resume(job.state, ANNA, same_key=same_key),
    }[how]()
    assert types(job.append(*again)) == ["JobResumed", "SubStepReset"]
    job.claim()
    assert (job.of("p/one")["generation"], job.of("p/one")["attempts"]) == (2, 2)
    assert (job.of("p/one")["idempotency_key"] == key) == same_key


def test_an_edit_before_the_attempt_began_is_none_since() -> None:
    job = failed()
    job.append(*actions.edit_input(job.state, ANNA, 2))
    job.append(*actions.resume(job.state, ANNA))
    job.claim().fails("one")
    assert types(actions.retry(job.state, "p/one", ANNA, job.now())) == ["JobResumed"]


def test_one_that_backs_off_is_due_now_with_a_new_budget() -> None:
    job = owned().fails("one", error=FLAKY)
    assert job.of("p/one")["status"] == "retrying"
    now = job.now()
    (due,) = job.append(*actions.retry(job.state, "p/one", ANNA, now))
    assert due.as_data() == {
        "phase": "p", "sub_step": "one", "generation": 1, "attempt": 2, "retry_at": now,
        "by": "anna", "reason": ANNA.reason,
    }  # fmt: skip
    assert job.of("p/one")["failures"] == 0
    job.decide()
    assert job.of("p/one")["status"] == "in_progress"


def test_all_that_back_off_are_due_now() -> None:
    job = new(ONE, {**ONE, "name": "two"}).claim().fails("one", "two", error=FLAKY)
    assert types(actions.retry_all(job.state, ANNA, job.now())) == ["SubStepRetryScheduled"] * 2
    assert refusal(lambda: actions.retry_all(owned().state, ANNA, "")).why == "it has not failed, and nothing backs off"


def test_a_waiting_job_is_woken_by_what_a_person_does() -> None:
    job = owned().fails("one", error=FLAKY)
    job.append(ev.JobReleased(reason="waiting", wake_at="2030-01-01T00:00:00.000000Z"))
    assert job.state["status"] == "waiting"
    job.append(*actions.retry(job.state, "p/one", ANNA, job.now()))
    assert head_of(job.state).wake_at == job.state["recorded_at"]


def test_a_held_interruption_runs_again() -> None:
    job = parked()
    job.append(*actions.retry(job.state, "p/held", ANNA, job.now()))
    job.claim()
    assert job.of("p/held")["status"] == "in_progress"


def test_a_condition_that_failed_is_asked_again() -> None:
    job = new({**ASKED, "optional": True}, TWO).claim(answer=ERROR)
    assert types(job.append(*actions.retry(job.state, "p/asked", ANNA, job.now()))) == ["SubStepReset"]
    assert job.decide().of("p/asked")["status"] == "in_progress"
    job = new(ASKED).claim(answer=ERROR)
    assert types(job.append(*actions.retry(job.state, "p/asked", ANNA, job.now()))) == ["JobResumed"]
    assert job.claim().of("p/asked")["generation"] == 1


def test_what_would_stop_the_job_again_is_named() -> None:
    job = new(ONE, TWO, TOLERATED).claim().fails("one", "two", "tolerated")
    assert job.state["status"] == "failed"
    assert refusal(lambda: actions.retry(job.state, "p/one", ANNA, job.now())).blocked_by == ["p/two"]
    assert refusal(lambda: actions.retry(job.state, "p/tolerated", ANNA, job.now())).blocked_by == ["p/one", "p/two"]
    assert refusal(lambda: reset(job, "p/one")).blocked_by == ["p/two"]
    job.append(*actions.skip(job.state, "p/two", ANNA))
    assert types(job.append(*actions.retry(job.state, "p/one", ANNA, job.now()))) == ["JobResumed"]
    assert job.claim().of("p/one")["status"] == "in_progress"


def test_only_that_sub_step_of_a_failed_phase_runs_again() -> None:
    job = new(ONE, TOLERATED).claim().fails("tolerated").fails("one")
    job.append(*actions.retry(job.state, "p/one", ANNA, job.now()))
    assert job.claim().statuses() == {"p/one": "in_progress", "p/tolerated": "failed"}


def test_a_tolerated_failure_that_others_went_on_from_is_reset_instead() -> None:
    job = new(TOLERATED, step_plan("next", after=["p/tolerated"])).claim().fails("tolerated")
    refused = refusal(lambda: actions.retry(job.state, "p/tolerated", ANNA, job.now()))
    assert refused.blocked_by == ["p/next"]
    assert "it has settled" in refusal(lambda: actions.retry(owned().completes("one").state, "p/one", ANNA, "")).why


def test_a_tolerated_failure_of_a_phase_that_is_over_is_reset_instead() -> None:
    job = new(TOLERATED, q=[TWO]).claim().fails("tolerated").handed_back()
    assert current_phase(job.state) == "q"
    assert refusal(lambda: actions.retry(job.state, "p/tolerated", ANNA, job.now())).why == "p is over: reset it"


# --- skip, complete, fail --------------------------------------------------------------------------------------------


SETTLE: dict[str, Callable[[Job, str], list[EventData]]] = {
    "skip": lambda job, key: actions.skip(job.state, key, ANNA),
    "complete": lambda job, key: actions.complete(job.state, key, ANNA, 7),
    "fail": lambda job, key: actions.fail(job.state, key, ANNA),
}
SETTLED_AS = {"skip": "skipped", "complete": "completed", "fail": "failed"}
OPEN: dict[str, Callable[[], Job]] = {
    "pending": lambda: new(ONE),
    "in_progress": owned,
    "retrying": lambda: owned().fails("one", error=FLAKY),
    "interrupted": lambda: owned().handed_back(),
}


@pytest.mark.parametrize("action", SETTLE)
@pytest.mark.parametrize("status", OPEN)
def test_an_open_sub_step_is_settled_by_hand(action: str, status: str) -> None:
    job = OPEN[status]()
    assert job.of("p/one")["status"] == status
    (event,) = job.append(*SETTLE[action](job, "p/one"))
    assert event.as_data()["by"] == "anna"
    assert job.of("p/one")["status"] == SETTLED_AS[action]


@pytest.mark.parametrize("action", SETTLE)
def test_needs_that_have_not_settled_are_named(action: str) -> None:
    refused = refusal(lambda: SETTLE[action](owned(), "p/later"))
    assert (refused.why, refused.blocked_by, refused.allowed) == ("it needs p/one (in_progress)", ["p/one"], [])


def test_a_failure_that_stops_the_job_is_no_need_that_was_met() -> None:
    job = failed()
    assert refusal(lambda: actions.skip(job.state, "p/later", ANNA)).why == "it needs p/one (failed)"
    job.append(*actions.complete(job.state, "p/one", ANNA, 7))
    job.append(*actions.skip(job.state, "p/later", ANNA))


@pytest.mark.parametrize("action", ["skip", "complete"])
def test_a_failed_job_can_be_resumed_without_what_failed(action: str) -> None:
    job = failed()
    assert types(job.append(*SETTLE[action](job, "p/one")))[0].startswith("SubStep")
    job.append(*actions.resume(job.state, ANNA))
    assert job.lives_on().state["status"] == "completed"
    assert job.of("p/later")["status"] == {"skip": "skipped", "complete": "completed"}[action]


@pytest.mark.parametrize("action", SETTLE)
def test_a_completed_sub_step_is_only_reset(action: str) -> None:
    refused = refusal(lambda: SETTLE[action](owned().completes("one"), "p/one"))
    assert refused.why == "it has settled: only a reset makes it undone"


def test_the_outcome_of_an_attempt_settled_by_hand_comes_late() -> None:
    job = owned()
    (of,) = in_progress(job.state)
    job.append(*actions.skip(job.state, "p/one", ANNA))
    job.decide(fact.Completed(of, 1, {}, 1.0))
    assert types(job.decided)[0] == "LateOutcome"
    assert job.of("p/one")["status"] == "skipped"


def test_a_sub_step_failed_by_hand_says_by_whom_and_stops_the_job() -> None:
    job = owned()
    job.append(*actions.fail(job.state, "p/one", ANNA))
    job.decide()
    assert job.state["status"] == "failed"
    assert job.of("p/one")["error"]["type"] == "FailedByHand"
    assert job.of("p/one")["error"]["message"] == ANNA.reason


def test_an_ended_job_takes_nothing_but_a_reset() -> None:
    job = completed()
    assert allowed_sub_step_actions(job.state, "p/one") == ["reset"]
    assert "it has ended" in refusal(lambda: actions.retry(job.state, "p/one", ANNA, "")).why


# --- reset -----------------------------------------------------------------------------------------------------------


def test_a_reset_takes_what_follows_with_it_and_opens_the_job_again() -> None:
    job = new(ONE, LATER, TOLERATED, q=[TWO]).claim().completes("tolerated").completes("one").completes("later")
    job.completes("two")
    events = job.append(*reset(job, "p/one"))
    assert types(events) == ["JobReopened", "SubStepReset"]
    assert events[1].as_data()["sub_steps"] == ["p/one", "p/later", "q/two"]
    assert job.state["status"] == "queued"
    assert {name: phase["status"] for name, phase in job.state["phases"].items()} == {
        "p": "in_progress",
        "q": "pending",
    }
    assert job.lives_on().state["status"] == "completed"
    assert job.of("p/tolerated")["attempts"] == 1


def test_a_reset_follows_edges_through_others() -> None:
    job = new(ONE, step_plan("next", after=["p/one"]), step_plan("last", after=["p/next"]), TWO).claim()
    job.completes("one").completes("next").completes("last").handed_back()
    assert reset(job, "p/one")[0].as_data()["sub_steps"] == ["p/one", "p/next", "p/last"]


def test_a_reset_of_everything_begins_the_phase_anew() -> None:
    job = new(TWO).claim().completes("two")
    job.append(*reset(job, "p/two"))
    assert (job.state["phases"]["p"]["status"], job.state["phases"]["p"]["started_at"]) == ("pending", None)


def test_a_reset_is_refused_while_something_of_it_is_in_progress() -> None:
    job = owned().completes("one")
    refused = refusal(lambda: reset(job, "p/one"))
    assert (refused.why, refused.blocked_by) == (
        "p/later in progress: pause the job, or settle them by hand",
        ["p/later"],
    )


def test_there_is_nothing_to_reset_where_nothing_has_happened() -> None:
    assert refusal(lambda: reset(new(ONE), "p/one")).why == "nothing has happened to it"


def test_a_stopped_job_stays_stopped_over_a_reset() -> None:
    job = owned().completes("one").handed_back()
    job.append(*actions.pause(job.state, ANNA))
    assert types(job.append(*reset(job, "p/one"))) == ["SubStepReset"]
    assert job.state["status"] == "paused"


def test_the_context_goes_back_to_what_was_last_written_by_what_is_not_reset() -> None:
    job = (
        new(ONE, LATER).claim().completes("one", changed={"mine": 1, "only": 1}).completes("later", changed={"mine": 2})
    )
    values = {("mine", ""): 0, ("mine", "p/one"): 1, ("mine", "p/later"): 2, ("only", "p/one"): 1}
    again = actions.reset(job.state, "p/later", ANNA, values, group="g")
    assert again[-1].as_data()["set"] == {"mine": 1}
    job.append(*actions.reset(job.state, "p/one", ANNA, values, group="g"))
    assert job.state["context"] == {"mine": 0}


def test_a_reset_of_many_comes_in_chunks_of_one_group() -> None:
    count = NAMES_MAX + 5
    job = new(ONE, *(step_plan(f"s{number}", after=["p/one"]) for number in range(count))).claim()
    job.completes("one").completes(*(f"s{number}" for number in range(count)))
    events = job.append(*reset(job, "p/one"))
    chunks = [event.as_data() for event in events[1:]]
    assert [len(chunk["sub_steps"]) for chunk in chunks] == [NAMES_MAX, 6]
    assert {chunk["group"] for chunk in chunks} == {"g"}
    assert set(job.statuses().values()) == {"pending"}


def test_a_reset_of_a_large_context_comes_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "CONTEXT_BYTES_MAX", 10)
    job = new(ONE).claim().completes("one", changed={"a": "x" * 8, "b": "y" * 8})
    values = {("a", ""): "old a", ("b", ""): "old b"}
    job.state["writers"]["a"][""] = job.state["writers"]["b"][""] = 1
    events = job.append(*actions.reset(job.state, "p/one", ANNA, values, group="g"))
    assert [event.as_data()["set"] for event in events[1:]] == [{"a": "old a"}, {"b": "old b"}]
    assert job.state["context"] == {"mine": 0, "a": "old a", "b": "old b"}
