"""From a definition to its plan."""

from __future__ import annotations

from typing import Any

from steplog.engine.definition import AnyDefinition, AnySubStep, Phase
from steplog.engine.errors import DefinitionError
from steplog.projections.outset import Outset
from steplog.projections.plan import CompensatePlan, MapPlan, PhasePlan, Plan, Shape, SubStepPlan
from steplog.projections.state import State


def plan_of(definition: AnyDefinition) -> Plan:
    """The definition's shape as data, as the job's first event records it. Not to be changed: all its jobs share it.

    Raises DefinitionError where there is nothing to run: a decorator was forgotten.
    """
    return outset_of(definition).plan


def outset_of(definition: AnyDefinition) -> Outset:
    """The same, with what follows from it."""
    if definition.outset is None:
        definition.outset = Outset.of(_plan(definition))
    return definition.outset


def shape_of(definition: AnyDefinition, state: State) -> Shape:
    """The index of a job's plan: the definition's own, where the job began with that."""
    outset = outset_of(definition)
    return outset.shape if state["plan"] is outset.plan else Shape.of(state["plan"])


def _plan(definition: AnyDefinition) -> Plan:
    for phase in definition.phases.values():
        if not phase.sub_steps:
            raise DefinitionError(f"phase {phase.name} of {definition.name} declares no sub-step")
    if not definition.phases:
        raise DefinitionError(f"workflow {definition.name} declares no sub-step")
    plan = Plan(phases=[_phase_plan(phase) for phase in definition.phases.values()])
    if definition.deadline_s is not None:
        plan["deadline_s"] = definition.deadline_s
    if definition.compensate_on:
        plan["compensate_on"] = definition.compensate_on
    return plan


def _phase_plan(phase: Phase[Any, Any]) -> PhasePlan:
    plan = PhasePlan(name=phase.name, sub_steps=[_sub_step_plan(step) for step in phase.sub_steps.values()])
    if phase.description is not None:
        plan["description"] = phase.description
    if phase.parallel is not None:
        plan["parallel"] = phase.parallel
    return plan


def _sub_step_plan(sub_step: AnySubStep) -> SubStepPlan:
    options = sub_step.options
    markers = sub_step.sources
    plan = SubStepPlan(
        name=sub_step.name,
        after=[edge.key for edge in options.after],
        needs=list(dict.fromkeys(marker.sub_step.key for marker in markers)),
        defaults=list(dict.fromkeys(marker.sub_step.key for marker in markers if marker.has_default)),
        optional=options.optional,
        when=options.when is not None,
        retry=options.retry.plan(),
        on_interrupt=options.on_interrupt,
    )
    if options.timeout_s is not None:
        plan["timeout_s"] = options.timeout_s
    if options.deadline_s is not None:
        plan["deadline_s"] = options.deadline_s
    if options.wait is not None:
        plan["wait"] = options.wait
    if sub_step.fan_out is not None:
        plan["map"] = MapPlan(parallel=sub_step.fan_out.parallel)
    if sub_step.undo is not None:
        plan["compensate"] = CompensatePlan(retry=sub_step.undo.options.retry.plan())
        if sub_step.undo.options.timeout_s is not None:
            plan["compensate"]["timeout_s"] = sub_step.undo.options.timeout_s
    if options.has_default:
        plan["default"] = options.default
    return plan
