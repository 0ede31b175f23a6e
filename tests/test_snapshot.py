"""The snapshot and the resume point: what people see of a job, in the report's shape, in the plan's order."""

from __future__ import annotations

import pytest
from registration_shape import STATUSES, Signup, registration_shape

from steplog.engine.history import load
from steplog.eventstore.codec import decode, encode
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.projections.evolve import as_state
from steplog.projections.resume_point import resume_point
from steplog.projections.snapshot import snapshot
from steplog.projections.state import State, new_sub_step


@pytest.fixture
def job(sqlite_store: SQLiteStore) -> tuple[Store, str]:
    handle = registration_shape(lambda key, idempotency_key: None).run(Signup(), store=sqlite_store)
    return sqlite_store, handle.job_id


def at(job: tuple[Store, str], event_type: str, sub_step: str) -> State:
    """The state at the first such event."""
    store, job_id = job
    version = next(
        event.version
        for event in store.read(job_id)
        if event.type == event_type and event.data.get("sub_step") == sub_step
    )
    return load(store, job_id, version).state


def test_a_snapshot_has_the_keys_that_are_promised(job: tuple[Store, str]) -> None:
    shown = snapshot(load(*job).state)

    assert {"job_id", "workflow", "status", "version", "current_phase", "progress", "context", "phases"} <= shown.keys()
    assert shown["progress"] == {"done": 12, "total": 12}
    for phase in shown["phases"].values():
        assert {"status", "started_at", "completed_at", "sub_steps"} <= phase.keys()
        for sub_step in phase["sub_steps"].values():
            assert set(sub_step) == {
                *("status", "attempts", "generation", "started_at", "completed_at", "seconds", "result", "error"),
                *("reason", "retry_at", "wait", "idempotency_key", "progress", "cursor"),
            }
            assert set(sub_step) <= set(new_sub_step())


def test_phases_and_sub_steps_stand_in_the_plans_order_also_from_a_stored_state(job: tuple[Store, str]) -> None:
    state = load(*job).state
    stored = as_state(decode(encode(dict(state))))

    for shown in (snapshot(state), snapshot(stored)):
        keys = [f"{name}/{step}" for name, phase in shown["phases"].items() for step in phase["sub_steps"]]
        assert keys == list(STATUSES)


def test_a_snapshot_in_the_middle_tells_what_is_done_retrying_running_and_to_come(job: tuple[Store, str]) -> None:
    shown = snapshot(at(job, "SubStepRetryScheduled", "payment"))

    steps = shown["phases"]["phase2"]["sub_steps"]
    assert (shown["status"], shown["current_phase"]) == ("running", "phase2")
    assert (steps["payment"]["status"], steps["payment"]["attempts"]) == ("retrying", 1)
    assert steps["payment"]["error"]["message"] == "502"
    assert steps["restaurant"]["status"] == "completed"
    assert shown["phases"]["phase1"]["status"] == "completed"
    assert shown["phases"]["phase3"]["status"] == "pending"


def test_the_resume_point_says_what_would_run_next_and_why(job: tuple[Store, str]) -> None:
    point = resume_point(at(job, "SubStepRetryScheduled", "create_user"))

    runs = {each["sub_step"]: each for each in point["run"]}
    assert (point["phase"], runs["phase1/create_user"]["attempt"]) == ("phase1", 2)
    assert runs["phase1/create_user"]["not_before"] is not None
    assert point["skipped"] == ["phase1/upload_images"]


def test_the_resume_point_of_a_later_phase_names_what_waits_for_what(job: tuple[Store, str]) -> None:
    point = resume_point(at(job, "SubStepStarted", "restaurant"))

    waits = {each["sub_step"]: each["for"] for each in point["waiting"]}
    assert waits["phase2/services"] == waits["phase2/menu"] == "phase2/restaurant"
    assert waits["phase2/sync_user"] == "phase2/payment"
    assert "phase1/account" in point["done"]


def test_nothing_runs_next_in_a_completed_job(job: tuple[Store, str]) -> None:
    point = resume_point(load(*job).state)

    assert (point["phase"], point["run"], point["waiting"]) == (None, [], [])
    assert point["failed"] == ["phase2/payment"]
