"""The table that a page of before reads: its words, its times, its shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from shown_jobs import HALF_WAY, TIMEOUT, after, completed, created, failed, started, state_of
from simulated_jobs import SimulatedLog, simulated_logs

from steplog.eventstore import events as ev
from steplog.projections.evolve import fold
from steplog.projections.report_table import milliseconds, step_row, sub_step_progress
from steplog.projections.state import State

BEGAN_MS = 1795435200000

KEYS = {
    "pending": {"status"},
    "in_progress": {"status", "started_at", "attempt"},
    "retrying": {"status", "attempt", "previous_error", "started_at"},
    "completed": {"status", "started_at", "completed_at", "attempt", "attempts"},
    "failed": {"status", "error", "attempts", "started_at"},
    "skipped": {"status", "reason"},
}


def test_progress_has_the_shape_that_the_page_reads() -> None:
    assert sub_step_progress(state_of(HALF_WAY)) == {
        "current_phase": "phase2",
        "phases": {
            "phase1": {
                "status": "completed",
                "sub_steps": {
                    "code_generation": _completed(0, 8100),
                    "create_user": _completed(0, 400),
                },
            },
            "phase2": {
                "status": "in_progress",
                "description": "Configuration",
                "sub_steps": {
                    "register": _completed(8100, 9300),
                    "menu_import": {
                        "status": "retrying",
                        "attempt": 2,
                        "previous_error": "slow",
                        "started_at": BEGAN_MS + 8100,
                    },
                    "website": {"status": "skipped", "reason": "no code_files"},
                    "services": {"status": "failed", "error": "502", "attempts": 1, "started_at": BEGAN_MS + 8100},
                    "sync": {"status": "pending"},
                },
            },
            "phase3": {"status": "pending", "sub_steps": {"finish": {"status": "pending"}}},
        },
        "context": {},
    }


def _completed(started_ms: int, completed_ms: int) -> dict[str, Any]:
    return {
        "status": "completed",
        "started_at": BEGAN_MS + started_ms,
        "completed_at": BEGAN_MS + completed_ms,
        "attempt": 1,
        "attempts": 1,
    }


def test_running_attempt_says_which_it_is() -> None:
    state = state_of([*HALF_WAY, started(53.0, "phase2/menu_import", 2)])
    assert _sub_step(state, "phase2", "menu_import") == {
        "status": "in_progress",
        "started_at": BEGAN_MS + 8100,
        "attempt": 2,
    }


def test_interrupted_attempt_is_one_that_is_tried_again() -> None:
    interrupted = ev.SubStepInterrupted(
        phase="phase1", sub_step="create_user", attempt=1, cause="owner died", worker_id="w"
    )
    state = state_of([created(), started(1.0, "phase1/create_user"), (2.0, interrupted)])
    shown = _sub_step(state, "phase1", "create_user")
    assert (shown["status"], shown["attempt"]) == ("retrying", 2)


def test_failures_that_were_tolerated_are_settled_once_the_job_has_moved_on() -> None:
    settled = [
        *HALF_WAY,
        started(53.0, "phase2/menu_import", 2),
        completed(54.0, "phase2/menu_import", 1.0, 2),
        (54.0, ev.SubStepSkipped(phase="phase2", sub_step="sync", cause="unmet need", reason="needs nothing")),
    ]
    assert sub_step_progress(state_of(settled))["phases"]["phase2"]["status"] == "failed"
    moved_on = [*settled, (55.0, ev.PhaseCompleted(phase="phase2"))]
    progress = sub_step_progress(state_of(moved_on))
    assert progress["phases"]["phase2"]["status"] == "completed"
    assert progress["current_phase"] == "phase3"


def test_row_is_known_by_the_jobs_key_and_says_what_stopped_it() -> None:
    facts = [created(key="r42"), started(0.0, "phase1/create_user"), failed(1.0, "phase1/create_user", 1.0, TIMEOUT)]
    row = step_row(state_of(facts), 4)
    assert (row.job_id, row.step_number, row.status, row.error_message) == ("r42", 4, "pending", None)
    stopped = ev.JobFailed(error={"message": "create_user failed: slow"}, phase="phase1", sub_step="create_user")
    row = step_row(state_of([*facts, (2.0, stopped)]), 4)
    assert (row.status, row.error_message) == ("action_required", "create_user failed: slow")
    assert row.updated_at == after(2.0)


@pytest.mark.parametrize(("instant", "ms"), [("2024-12-29T00:00:00.123456Z", 1735430400123), (None, None)])
def test_times_are_milliseconds_since_1970(instant: str | None, ms: int | None) -> None:
    assert milliseconds(instant) == ms


@given(simulated_logs())
def test_every_job_at_every_version_has_that_shape(log: SimulatedLog) -> None:
    for cut in range(1, len(log.events) + 1):
        state = fold(log.events[:cut])
        progress = sub_step_progress(state)
        assert progress.keys() == {"current_phase", "phases", "context"}
        unfinished = [name for name, phase in progress["phases"].items() if phase["status"] != "completed"]
        assert progress["current_phase"] == (unfinished[0] if unfinished else "completed")
        for phase in progress["phases"].values():
            assert phase["status"] in ("pending", "in_progress", "completed", "failed")
            for shown in phase["sub_steps"].values():
                assert shown.keys() <= KEYS[shown["status"]]
                assert shown.keys() >= KEYS[shown["status"]] - {"started_at", "attempt"}


def _sub_step(state: State, phase: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = sub_step_progress(state)["phases"][phase]["sub_steps"][name]
    return found
