"""Whether the code's types still take what a job has recorded: asked before the job is claimed."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.values import load, problems_of
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import SETTLED, State, SubStepStatus


def misfits(state: State, definition: AnyDefinition) -> list[str]:
    """What the code would refuse of the input, the context and the results that are still needed, as sentences.

    The plan of the job and that of the definition must agree.
    """
    found = _misfit("input", state["input"], definition.input_type)
    found += _misfit("context", state["context"], definition.context_type)
    needed = {
        marker.sub_step.key
        for key, sub_step in definition.sub_steps.items()
        if _may_run(sub_step_of(state, key)["status"], sub_step)
        for marker in sub_step.bindings.results.values()
    }
    for key, source in definition.sub_steps.items():
        if key in needed and sub_step_of(state, key)["status"] == "completed":
            found += _misfit(f"result of {key}", sub_step_of(state, key)["result"], source.bindings.returns)
    return found


def _may_run(status: SubStepStatus, sub_step: AnySubStep) -> bool:
    """Whether the job may come to it yet: resuming gives failures another chance, but not tolerated ones."""
    return status not in SETTLED or (status == "failed" and not sub_step.options.optional)


def _misfit(what: str, recorded: Any, kind: Any) -> list[str]:
    try:
        load(recorded, kind)
    except ValidationError as error:
        return [f"{what}: {problem}" for problem in problems_of(error)]
    return []
