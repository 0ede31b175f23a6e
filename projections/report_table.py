"""A job in the shape of `registration_job_steps.sub_step_progress`, for any workflow: a page that reads that table goes
on working. Pure.

Its words are fewer than ours: six statuses, one attempt a sub-step, times in epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from steplog.eventstore.projected import StepRow
from steplog.projections.projecting import Job, Tally
from steplog.projections.state import PhaseState, State, SubStepState

STEP_NUMBER = 6
"""Which of the steps of a page's job is the one with sub-steps, unless said otherwise."""

_SETTLED = frozenset({"completed", "skipped"})
_RUNS = frozenset({"in_progress", "retrying"})
_STATUSES = {
    "pending": "pending",
    "waiting": "in_progress",
    "in_progress": "in_progress",
    "retrying": "retrying",
    "interrupted": "retrying",
    "completed": "completed",
    "failed": "failed",
    "skipped": "skipped",
}
_ROW_STATUSES = {
    "queued": "pending",
    "running": "in_progress",
    "waiting": "in_progress",
    "compensating": "in_progress",
    "paused": "action_required",
    "parked": "action_required",
    "failed": "action_required",
    "completed": "completed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Keeps a row a job. A job that was given a key is known to the page by that, any other by its id."""

    table: str | None = None
    step_number: int = STEP_NUMBER
    name: str = "report"
    revision: int = 1

    def document(self, job: Job) -> Any:
        return step_row(job.state(), self.step_number)._asdict()

    def tallies(self, document: Any) -> Mapping[str, Tally]:
        return {}

    def rows(self, document: Any) -> list[StepRow]:
        return [StepRow(**document)]


def step_row(state: State, step_number: int = STEP_NUMBER) -> StepRow:
    """The job's row in the table."""
    error = state["error"]
    return StepRow(
        job_id=state["key"] or state["job_id"],
        step_number=step_number,
        status=_ROW_STATUSES[state["status"]],
        sub_step_progress=orjson.dumps(sub_step_progress(state)).decode(),
        error_message=error["message"] if error else None,
        updated_at=state["recorded_at"],
    )


def sub_step_progress(state: State) -> dict[str, Any]:
    """The job as that page reads it, phases and sub-steps in the plan's order."""
    phases: dict[str, Any] = {}
    for plan in state["plan"]["phases"]:
        phase = state["phases"][plan["name"]]
        sub_steps = {step["name"]: _sub_step(phase["sub_steps"][step["name"]]) for step in plan["sub_steps"]}
        described = {"description": plan["description"]} if "description" in plan else {}
        phases[plan["name"]] = {"status": _phase_status(phase, sub_steps), **described, "sub_steps": sub_steps}
    unfinished = (name for name, phase in phases.items() if phase["status"] != "completed")
    return {"current_phase": next(unfinished, "completed"), "phases": phases, "context": state["context"]}


def _phase_status(phase: PhaseState, sub_steps: dict[str, Any]) -> str:
    statuses = {sub_step["status"] for sub_step in sub_steps.values()}
    if phase["status"] == "completed" or statuses <= _SETTLED:
        return "completed"  # failures that were tolerated are settled once the job has moved on
    if statuses & _RUNS:
        return "in_progress"
    if "failed" in statuses:
        return "failed"
    return "pending" if statuses == {"pending"} else "in_progress"


def _sub_step(sub_step: SubStepState) -> dict[str, Any]:
    status = _STATUSES[sub_step["status"]]
    attempts, error = sub_step["attempts"], sub_step["error"]
    if status == "skipped":
        return {"status": status, "reason": sub_step["reason"]}
    shown: dict[str, Any] = {"status": status}
    if status == "failed":
        shown["error"] = error["message"] if error else None
    if status == "retrying":
        shown |= {"attempt": attempts + 1, "previous_error": error["message"] if error else sub_step["reason"]}
    if sub_step["started_at"] and status != "pending":
        shown["started_at"] = milliseconds(sub_step["started_at"])
    if status == "completed":
        shown["completed_at"] = milliseconds(sub_step["completed_at"])
    if status in ("completed", "in_progress") and attempts:
        shown["attempt"] = attempts
    if status in ("completed", "failed"):
        shown["attempts"] = attempts
    return shown


def milliseconds(instant: str | None) -> int | None:
    """Since 1970, of an instant of the log."""
    return None if instant is None else round(datetime.fromisoformat(instant).timestamp() * 1000)
