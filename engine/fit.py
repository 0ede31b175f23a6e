"""Whether the code's types take what a job has recorded: asked before it is claimed, and of signals as they come."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from steplog.engine.deciding.draft import error_of
from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.facts import ErrorData
from steplog.engine.values import load, problems_of
from steplog.engine.vault import Vault
from steplog.projections.fan_out import items_of, results_of
from steplog.projections.plan import Key, Shape
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import SETTLED, State, SubStepState, SubStepStatus


def misfits(state: State, definition: AnyDefinition, vault: Vault) -> list[str]:
    """What the code would refuse of the input, the context and the results that are still needed, as sentences.

    The plan of the job and that of the definition must agree. Raises SecretsClosed where that cannot be told here.
    """
    found = _misfit("input", state["input"], definition.input_type, vault)
    found += _misfit("context", state["context"], definition.context_type, vault)
    needed = {
        marker.sub_step.key
        for key, sub_step in definition.sub_steps.items()
        if _may_run(sub_step_of(state, key)["status"], sub_step)
        for marker in sub_step.sources
    }
    for key, source in definition.sub_steps.items():
        if key in needed and sub_step_of(state, key)["status"] == "completed":
            found += _misfit(f"result of {key}", results_of(sub_step_of(state, key)), source.returns, vault)
    for key, sub_step in definition.sub_steps.items():
        if sub_step.fan_out is not None:
            found += _misfits_of_items(sub_step_of(state, key), sub_step, vault)
    return found


def _misfits_of_items(recorded: SubStepState, sub_step: AnySubStep, vault: Vault) -> list[str]:
    """What the handler would refuse of the items that may run yet; the first is enough."""
    if recorded["items"] is None or not _may_run(recorded["status"], sub_step):
        return []
    for item in items_of(recorded):
        if item.state["status"] not in ("completed", "skipped") and (
            found := _misfit(f"item {item.key} of {sub_step.key}", item.input, sub_step.bindings.item, vault)
        ):
            return found
    return []


def unfit_signals(state: State, shape: Shape, definition: AnyDefinition) -> dict[tuple[Key, str], ErrorData]:
    """Why the payload of a signal is not what a sub-step that may wait for it takes, by the sub-step and the signal."""
    return {
        (key, signal["signal_id"]): error_of("SignalRefused", "; ".join(problems))
        for waits in shape.waits.values()
        for key, wait in waits.items()
        for signal in state["signals"].get(wait["signal"] or "", ())
        if (problems := _misfit("payload", signal["payload"], definition.sub_steps[key].bindings.returns))
    }


def _may_run(status: SubStepStatus, sub_step: AnySubStep) -> bool:
    """Whether the job may come to it yet: resuming gives failures another chance, but not tolerated ones."""
    return status not in SETTLED or (status == "failed" and not sub_step.options.optional)


def _misfit(what: str, recorded: Any, kind: Any, vault: Vault | None = None) -> list[str]:
    try:
        load(recorded, kind, vault)
    except ValidationError as error:
        return [f"{what}: {vault.scrub(problem) if vault else problem}" for problem in problems_of(error)]
    return []
