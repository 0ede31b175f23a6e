"""A job of somebody else's engine: every change durable when the call returns, one recorder at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steplog import OwnershipLost, Recorder, Workflow, run_worker
from steplog.engine import operators
from steplog.engine.errors import RecordRefused
from steplog.engine.jobs import resume_blocking
from steplog.engine.recorder import plan_named
from steplog.engine.recording import Described, GivenEvent, append_given, open_recording
from steplog.engine.verification import verify_job
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import KeyConflict, WrongState
from steplog.eventstore.store import Claim, Store

PHASES = {"phase1": ["codeGeneration", "createOnboardingUser"], "phase2": ["menuImport"]}


def opened(store: Store, key: str | None = None, **given: object) -> Recorder:
    return Recorder.open("registration", PHASES, key=key, store=store, **given)  # type: ignore[arg-type]  # as given


def types_of(store: Store, job_id: str) -> list[str]:
    return [event.type for event in store.read(job_id)]


def statuses(recorder: Recorder) -> dict[str, str]:
    phases = recorder.snapshot["phases"]
    return {name: step["status"] for phase in phases.values() for name, step in phase["sub_steps"].items()}


def test_each_change_is_an_event_and_durable_when_the_call_returns(store: Store) -> None:
    recorder = opened(store, input={"restaurant": "r42"})
    versions = [
        recorder.update_sub_step("codeGeneration", "in_progress"),
        recorder.progress("codeGeneration", 1, 2, "half"),
        recorder.update_sub_step("codeGeneration", "retrying", error="timeout"),
        recorder.update_sub_step("codeGeneration", "in_progress"),
        recorder.update_sub_step("codeGeneration", "completed", result=["a.ts"], context={"files": ["a.ts"]}),
        recorder.update_sub_step("createOnboardingUser", "skipped", reason="disabled"),
        recorder.update_phase("phase1", "completed"),
        recorder.update_sub_step("phase2/menuImport", "failed", error=ValueError("502\0")),
    ]
    assert versions[-1] == store.head(recorder.job_id).version == recorder.version
    assert versions == sorted(set(versions))
    assert statuses(recorder) == {
        "codeGeneration": "completed",
        "createOnboardingUser": "skipped",
        "menuImport": "failed",
    }
    assert recorder.snapshot["context"] == {"files": ["a.ts"]}
    assert recorder.snapshot["phases"]["phase1"]["sub_steps"]["codeGeneration"]["attempts"] == 2
    recorder.update_sub_step("menuImport", "completed")
    recorder.update_phase("phase2", "completed")
    recorder.complete()
    assert store.head(recorder.job_id).columns.status == "completed"
    assert not list(verify_job(store, recorder.job_id))


def test_what_does_not_fit_the_job_is_refused_and_leaves_no_trace(store: Store) -> None:
    recorder = opened(store)
    recorder.update_sub_step("codeGeneration", "in_progress")
    version = recorder.version
    wrong: list[Callable[[], object]] = [
        lambda: recorder.update_sub_step("codeGeneration", "in_progress"),
        lambda: recorder.update_phase("phase1", "completed"),
        lambda: recorder.update_phase("phase9", "completed"),
        lambda: recorder.progress("menuImport", 1),
        lambda: recorder.obey(),
    ]
    for refused in wrong:
        with pytest.raises(RecordRefused):
            refused()
    assert store.head(recorder.job_id).version == version


def test_nothing_is_recorded_behind_the_end(store: Store) -> None:
    recorder = opened(store, "k")
    recorder.complete()
    with pytest.raises(RecordRefused):
        recorder.set_context(late=True)
    with pytest.raises(WrongState):
        opened(store, "k")


def test_opening_the_key_again_fences_the_recorder_before_and_interrupts_what_it_ran(store: Store) -> None:
    first = opened(store, "r42")
    first.update_sub_step("codeGeneration", "in_progress")
    second = opened(store, "r42")
    assert (second.job_id, statuses(second)["codeGeneration"]) == (first.job_id, "interrupted")
    before = store.head(first.job_id).version
    with pytest.raises(OwnershipLost):
        first.update_sub_step("codeGeneration", "completed")
    assert store.head(first.job_id).version == before
    second.update_sub_step("codeGeneration", "in_progress")
    second.update_sub_step("codeGeneration", "completed")
    assert second.snapshot["phases"]["phase1"]["sub_steps"]["codeGeneration"]["attempts"] == 2
    with pytest.raises(KeyConflict):
        opened(store, "r42", input={"another": 1})


def test_our_own_workers_leave_recorded_jobs_alone(store: Store) -> None:
    wf = Workflow("registration")
    wf.phase("phase1").sub_step(name="codeGeneration")(lambda: None)
    recorder = Recorder.open(wf, store=store, key="k", input={})
    run_worker(wf, store=store, one_shot=True)
    with pytest.raises(WrongState):
        resume_blocking(wf, recorder.job_id, store, by="anna")
    assert types_of(store, recorder.job_id) == ["JobCreated", "JobClaimed"]
    own = wf.run(store=store, key="own")
    with pytest.raises(WrongState):
        Recorder.open(wf, store=store, key="own", input={})
    assert own.status == "completed"


def test_a_person_asks_and_the_other_engine_obeys(store: Store) -> None:
    recorder = opened(store)
    recorder.update_sub_step("codeGeneration", "in_progress")
    operators.cancel(store, recorder.job_id, by="anna", reason="rain")
    recorder.update_sub_step("codeGeneration", "completed")
    assert recorder.asked_to == "cancel"
    recorder.obey()
    assert store.head(recorder.job_id).columns.status == "cancelled"


def test_a_failed_job_goes_on_when_it_is_opened_again(store: Store) -> None:
    recorder = opened(store, "k")
    recorder.update_sub_step("codeGeneration", "failed", error="502")
    recorder.update_phase("phase1", "failed")
    recorder.fail("codeGeneration", "502")
    assert store.head(recorder.job_id).columns.status == "failed"
    again = opened(store, "k")
    assert store.head(recorder.job_id).columns.status == "running"
    again.update_sub_step("codeGeneration", "completed")


def test_given_events_are_checked_stored_once_and_fenced(store: Store) -> None:
    job = Described("registration", plan_named("registration", PHASES))
    recording = open_recording(store, job, by="their engine", key="k")
    ids = SystemClock()
    began = [
        GivenEvent(ids.new_id(), "PhaseStarted", {"phase": "phase1"}),
        GivenEvent(
            ids.new_id(),
            "SubStepStarted",
            {"phase": "phase1", "sub_step": "codeGeneration", "generation": 1, "attempt": 1, "idempotency_key": "k"},
        ),
    ]
    for _ in range(2):
        assert append_given(store, recording.job_id, recording.claim, 2, began) == 4
    assert types_of(store, recording.job_id)[2:] == ["PhaseStarted", "SubStepStarted"]
    bad = [
        GivenEvent(ids.new_id(), "JobClaimed", {}),
        GivenEvent(ids.new_id(), "NoSuchEvent", {}),
        GivenEvent(ids.new_id(), "PhaseStarted", {"phase": "phase1", "extra": 1}),
        GivenEvent(ids.new_id(), "PhaseStarted", {"phase": "no such phase"}),
    ]
    for event in bad:
        with pytest.raises(RecordRefused):
            append_given(store, recording.job_id, recording.claim, 4, [event])
    other = [GivenEvent(ids.new_id(), "PhaseStarted", {"phase": "phase2"})]
    with pytest.raises(WrongState):
        append_given(store, recording.job_id, recording.claim, 2, other)
    with pytest.raises(WrongState):
        append_given(store, recording.job_id, recording.claim, 100, other)
    with pytest.raises(OwnershipLost):
        append_given(store, recording.job_id, Claim("", 1, "not ours"), 4, other)
    assert store.head(recording.job_id).version == 4


def test_an_event_that_is_given_again_behind_a_later_version_is_stored_once(store: Store) -> None:
    job = Described("registration", plan_named("registration", PHASES))
    former = open_recording(store, job, by="their engine", key="k")
    ids = SystemClock()
    changed = [GivenEvent(ids.new_id(), "ContextChanged", {"set": {"n": number}}) for number in range(3)]
    append_given(store, former.job_id, former.claim, 2, changed[:1])
    recording = open_recording(store, job, by="their engine, again", key="k")

    for sent, version in ((changed[:1], recording.version), (changed[:2], recording.version + 1)):
        assert append_given(store, recording.job_id, recording.claim, recording.version, sent) == version
    with pytest.raises(RecordRefused, match="same id"):
        append_given(store, recording.job_id, recording.claim, recording.version + 1, [changed[2], changed[2]])
    with pytest.raises(OwnershipLost):
        append_given(store, recording.job_id, former.claim, recording.version + 1, changed[:1])
    set_to = [event.data["set"] for event in store.read(recording.job_id) if event.type == "ContextChanged"]
    assert set_to == [{"n": 0}, {"n": 1}]
