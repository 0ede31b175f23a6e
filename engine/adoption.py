"""What separates a job's plan from the code's, and whether the job can go on with the new one. Pure.

Sound is what leaves everything that has completed its meaning: it stays where it was, ran behind what it needed and
before what needed it, and what is to come can come behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from steplog.eventstore.events import PlanAdopted
from steplog.projections.evolve import Evolution
from steplog.projections.plan import Key, Plan, Shape, SubStepPlan, split_key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import ENDED, SETTLED, State

_SHAPES = ("after", "needs", "defaults", "optional", "when")
_POLICIES = ("compensate", "retry", "timeout_s", "deadline_s", "on_interrupt", "default")


@dataclass(frozen=True, slots=True)
class Adoption:
    """What would change, and what is in the way; without obstacles the job can take the plan."""

    differences: list[str]
    obstacles: list[str]


def adoption(state: State, current: Plan) -> Adoption:
    """Compare the job's plan with the code's, policies too, and look at what has happened by the old one."""
    then, now = Shape.of(state["plan"]), Shape.of(current)
    found = [*differences(state["plan"], current), *policy_differences(state["plan"], current)]
    return Adoption(found, [*_obstacles(state, then, now)])


def adopted(state: State, event: PlanAdopted) -> State:
    """The state after the job has taken the plan."""
    evolution = Evolution(state)
    evolution.foresee(event, state["recorded_at"])
    return evolution.state


# --- what is different -----------------------------------------------------------------------------------------------


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
    for key in then.sub_steps:
        if key not in now.sub_steps:
            renamed = _renamed(key, then, now)
            maybe = f" (or is it {renamed} now? then name it so: name={split_key(key)[1]!r})" if renamed else ""
            found.append(f"sub-step {key} is gone from the code{maybe}")
    found += [f"sub-step {key} is new in the code" for key in now.sub_steps if key not in then.sub_steps]
    for key in then.sub_steps:
        if key in now.sub_steps:
            found += _sub_step_differences(key, then.sub_steps[key], now.sub_steps[key])
    return found


def policy_differences(recorded: Plan, current: Plan) -> list[str]:
    """How policies changed: a job keeps those recorded in it until it takes the whole plan."""
    then, now = Shape.of(recorded), Shape.of(current)
    found = [
        f"phase {name}: parallel was {then.phases[name].get('parallel')} and is {now.phases[name].get('parallel')}"
        for name in then.phases
        if name in now.phases and then.phases[name].get("parallel") != now.phases[name].get("parallel")
    ]
    if recorded.get("compensate_on", []) != current.get("compensate_on", []):
        undone = f"{recorded.get('compensate_on', [])} and is {current.get('compensate_on', [])}"
        found.append(f"the job's compensate_on was {undone}")
    if recorded.get("deadline_s") != current.get("deadline_s"):
        found.append(f"the job's deadline_s was {recorded.get('deadline_s')} and is {current.get('deadline_s')}")
    for key in then.sub_steps:
        if key in now.sub_steps:
            found += _policy_changes(key, dict(then.sub_steps[key]), dict(now.sub_steps[key]))
    return found


def _policy_changes(key: Key, before: dict[str, object], after: dict[str, object]) -> Iterator[str]:
    for name in (*_POLICIES, "wait", "map"):
        if before.get(name) != after.get(name):
            yield f"sub-step {key}: {name} was {before.get(name)} and is {after.get(name)}"


def _sub_step_differences(key: Key, then: SubStepPlan, now: SubStepPlan) -> list[str]:
    before, after = dict(then), dict(now)
    found = [
        f"sub-step {key}: {name} was {before[name]} and is {after[name]}"
        for name in _SHAPES
        if before[name] != after[name]
    ]
    if ("map" in then) != ("map" in now):
        found.append(f"sub-step {key} {'was' if 'map' in then else 'is now'} a fan-out")
    if ("compensate" in then) != ("compensate" in now):
        found.append(f"sub-step {key} {'had' if 'compensate' in then else 'has now'} a compensation")
    if _waits_for(then) != _waits_for(now):
        found.append(f"sub-step {key} waited for {_waits_for(then)} and waits for {_waits_for(now)}")
    return found


def _waits_for(plan: SubStepPlan) -> str:
    """Not for how long: a job keeps to what its plan says."""
    wait = plan.get("wait")
    if wait is None:
        return "nothing"
    return "time" if wait["signal"] is None else f"signal {wait['signal']}"


def _renamed(key: Key, then: Shape, now: Shape) -> Key | None:
    """The only new sub-step of the phase that is as this one was, if this is the only one that is gone."""
    phase = split_key(key)[0]
    gone = [other for other in then.of_phase[phase] if other not in now.sub_steps]
    new = [other for other in now.of_phase.get(phase, ()) if other not in then.sub_steps]
    if len(gone) != 1 or len(new) != 1:
        return None
    return new[0] if {**then.sub_steps[key], "name": ""} == {**now.sub_steps[new[0]], "name": ""} else None


# --- what is in the way ----------------------------------------------------------------------------------------------


def _obstacles(state: State, then: Shape, now: Shape) -> Iterator[str]:
    if state["status"] in ENDED:
        yield f"the job is {state['status']}: fork it, or reset a sub-step of it first"
        return
    if state["undoing"]:
        yield "the job is being undone: it can only be forked"
        return
    yield from _of_phases(state, then, now)
    for key in then.sub_steps:
        if key in now.sub_steps:
            yield from _of_a_kept_one(state, key, then.sub_steps[key], now)
        else:
            yield from _of_a_gone_one(state, key)


def _of_phases(state: State, then: Shape, now: Shape) -> Iterator[str]:
    """Phases that have begun come first, in their order; of those that are over, nothing new can be part."""
    begun = [name for name in then.phases if state["phases"][name]["started_at"]]
    kept = [name for name in begun if name in now.phases]
    if list(now.phases)[: len(kept)] != kept:
        yield f"{', '.join(begun)} have begun, in this order, and the new plan begins with {', '.join(now.phases)}"
    over = {name for name in begun[:-1] if name in now.phases}
    for key in now.sub_steps:
        if key not in then.sub_steps and split_key(key)[0] in over:
            yield f"{key} is new in a phase that is over: {begun[-1]} has begun without it"


def _of_a_gone_one(state: State, key: Key) -> Iterator[str]:
    match sub_step_of(state, key)["status"]:
        case "completed":
            yield f"{key} has completed, and the new plan has no place for that: reset it first, or keep it"
        case "in_progress" | "interrupted":
            yield f"an attempt of {key} may have had its effect, and the new plan has no place for it: settle it first"


def _of_a_kept_one(state: State, key: Key, before: SubStepPlan, now: Shape) -> Iterator[str]:
    after, sub_step = now.sub_steps[key], sub_step_of(state, key)
    status = sub_step["status"]
    if status == "pending" and sub_step["items"] is None:
        return
    kind = ("map" in before, _waits_for(before)) != ("map" in after, _waits_for(after))
    if kind and status != "skipped":
        yield f"{key} has begun as something else: reset it first"
    if status == "completed" and (before["needs"], before["defaults"]) != (after["needs"], after["defaults"]):
        yield f"{key} has completed with other results than the new plan gives it: reset it first"
    unsettled = [edge for edge in (*after["after"], *after["needs"]) if not _is_settled(state, edge)]
    if unsettled and status not in ("failed", "skipped"):
        yield f"{key} has begun, and would now come behind {', '.join(unsettled)}: reset it first"
    if status == "failed" and before["optional"] and not after["optional"] and _is_over(state, key):
        yield f"the failure of {key} was tolerated, and later sub-steps went on without it: reset it first"


def _is_settled(state: State, key: Key) -> bool:
    phase, name = split_key(key)
    sub_steps = state["phases"][phase]["sub_steps"] if phase in state["phases"] else {}
    return name in sub_steps and sub_steps[name]["status"] in SETTLED


def _is_over(state: State, key: Key) -> bool:
    return state["phases"][split_key(key)[0]]["status"] == "completed"
