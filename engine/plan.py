"""From a definition to its plan, and what separates two plans."""

from __future__ import annotations

from typing import Any

from steplog.engine.definition import AnyDefinition, AnySubStep, Phase
from steplog.engine.errors import DefinitionError
from steplog.projections.outset import Outset
from steplog.projections.plan import PhasePlan, Plan, Shape, SubStepPlan
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
    return plan


def differences(recorded: Plan, current: Plan) -> list[str]:
    """What a job's recorded plan has that the code has not, and the other way round, as sentences; policies aside.

    A job goes on with the policies recorded in it, so only what changes the meaning of its log counts: phases,
    sub-steps, edges and conditions.
    """
    then, now = Shape.of(recorded), Shape.of(current)
    found = [f"phase {name} is gone from the code" for name in then.phases if name not in now.phases]
    found += [f"phase {name} is new in the code" for name in now.phases if name not in then.phases]
    if not found and list(then.phases) != list(now.phases):
        found.append(f"the phases' order was {', '.join(then.phases)} and is {', '.join(now.phases)}")
    found += [f"sub-step {key} is gone from the code" for key in then.sub_steps if key not in now.sub_steps]
    found += [f"sub-step {key} is new in the code" for key in now.sub_steps if key not in then.sub_steps]
    for key in then.sub_steps.keys() & now.sub_steps.keys():
        found += _sub_step_differences(key, then.sub_steps[key], now.sub_steps[key])
    return found


def _sub_step_differences(key: str, then: SubStepPlan, now: SubStepPlan) -> list[str]:
    before, after = dict(then), dict(now)
    found = [
        f"sub-step {key}: {name} was {before[name]} and is {after[name]}"
        for name in ("after", "needs", "defaults", "optional", "when")
        if before[name] != after[name]
    ]
    if _waits_for(then) != _waits_for(now):
        found.append(f"sub-step {key} waited for {_waits_for(then)} and waits for {_waits_for(now)}")
    return found


def _waits_for(plan: SubStepPlan) -> str:
    """Not for how long: a job keeps to what its plan says."""
    wait = plan.get("wait")
    if wait is None:
        return "nothing"
    return "time" if wait["signal"] is None else f"signal {wait['signal']}"


def _phase_plan(phase: Phase[Any, Any]) -> PhasePlan:
    plan = PhasePlan(name=phase.name, sub_steps=[_sub_step_plan(step) for step in phase.sub_steps.values()])
    if phase.description is not None:
        plan["description"] = phase.description
    if phase.parallel is not None:
        plan["parallel"] = phase.parallel
    return plan


def _sub_step_plan(sub_step: AnySubStep) -> SubStepPlan:
    options = sub_step.options
    markers = sub_step.bindings.results.values()
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
    if options.has_default:
        plan["default"] = options.default
    return plan
