"""The snapshot: the phase/sub-step JSON that people see. A pure function of the state."""

from __future__ import annotations

from typing import Any

from steplog.projections.fan_out import counts_of
from steplog.projections.state import PhaseState, State, SubStepState, current_phase

_SUB_STEP_KEYS = (
    "status",
    "attempts",
    "generation",
    "started_at",
    "completed_at",
    "seconds",
    "result",
    "error",
    "reason",
    "retry_at",
    "wait",
    "idempotency_key",
    "progress",
    "cursor",
)


def snapshot(state: State) -> dict[str, Any]:
    """The job as people see it, phases and sub-steps in the plan's order; times are RFC 3339 UTC.

    It has `erased` where the job's secrets were.
    """
    return {
        **({"erased": True} if state["erased"] else {}),
        "job_id": state["job_id"],
        "workflow": state["workflow"],
        "workflow_version": state["workflow_version"],
        "status": state["status"],
        "reason": state["reason"],
        "error": state["error"],
        "warnings": state["warnings"],
        "version": state["version"],
        "created_at": state["created_at"],
        "updated_at": state["recorded_at"],
        "ended_at": state["ended_at"],
        "key": state["key"],
        "tags": state["tags"],
        "input": state["input"],
        "current_phase": current_phase(state),
        "progress": {"done": state["done"], "total": state["total"]},
        "context": state["context"],
        "phases": {
            plan["name"]: _phase(state["phases"][plan["name"]], plan.get("description"), plan["sub_steps"])
            for plan in state["plan"]["phases"]
        },
    }


def _phase(phase: PhaseState, description: str | None, sub_steps: Any) -> dict[str, Any]:
    return {
        "status": phase["status"],
        "description": description,
        "started_at": phase["started_at"],
        "completed_at": phase["completed_at"],
        "sub_steps": {step["name"]: _sub_step(phase["sub_steps"][step["name"]]) for step in sub_steps},
    }


def _sub_step(sub_step: SubStepState) -> dict[str, Any]:
    """A fan-out is one sub-step with its items in numbers."""
    shown = _own(sub_step)
    if sub_step["compensation"] is not None:
        shown["compensation"] = sub_step["compensation"]
    return shown if sub_step["items"] is None else {**shown, "items": counts_of(sub_step["items"])._asdict()}


def _own(sub_step: SubStepState) -> dict[str, Any]:
    return {key: sub_step[key] for key in _SUB_STEP_KEYS}  # type: ignore[literal-required]  # keys of SubStepState, held by test_snapshot
