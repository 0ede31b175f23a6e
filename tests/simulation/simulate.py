"""One seed, one story, one verdict; and the smallest story that still goes wrong in the same way."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from simulation.drawing import draw_story
from simulation.invariants.every import INVARIANTS
from simulation.reading import Reading
from simulation.story import AppendFault, FanOutStory, Story, TransactionFault, told
from simulation.world import World

from steplog.eventstore.clock import seconds_between
from steplog.eventstore.events import Event

SHRINKING_MAX = 1_500
"""How many smaller stories are tried."""


@dataclass(frozen=True)
class Verdict:
    """What a story came to: its log, what is broken by the name of the invariant, what it covered."""

    story: Story
    log: list[Event]
    broken: dict[str, str]
    covered: Counter[str]
    seconds: float
    """How long it took on the virtual clock."""


def judge(story: Story) -> Verdict:
    """Let a story happen and look at what is left of it."""
    world = World(story)
    try:
        log = world.run()
        reading = Reading(story, log, world.notes, world.store.head(world.job_id))
        broken = {invariant.__name__: found for invariant in INVARIANTS if (found := next(invariant(reading), ""))}
    except Exception as error:
        log, broken = [], {"the simulation": f"{type(error).__name__}: {error}"}
    return Verdict(story, log, broken, +_covered(log, world), world.clock.monotonic())


def judge_seed(seed: int) -> Verdict:
    """The verdict on the story of a seed."""
    return judge(draw_story(seed))


def quietly() -> None:
    """The engine's warnings are what is wanted here, thousands of times."""
    logging.getLogger("steplog").setLevel(logging.CRITICAL)


# --- what was covered ------------------------------------------------------------------------------------------------

_EVENTS = {
    "SubStepRetryScheduled": "retry",
    "SubStepSkipped": "skip",
    "SubStepInterrupted": "interruption",
    "SubStepCheckpointed": "checkpoint",
    "LateOutcome": "late outcome",
    "JobParked": "parked",
    "JobFailed": "failed",
    "JobCompleted": "completed",
    "JobPaused": "paused",
    "JobCancelled": "cancelled",
    "SubStepReset": "reset",
    "SubStepWaiting": "wait",
    "SignalReceived": "signal",
    "SubStepLogged": "lines",
    "SubStepProgressed": "progress",
    "InputChanged": "input edited",
    "SubStepExpanded": "fan-out",
    "CompensationStarted": "undoing",
    "CompensationFailed": "undoing failed",
    "CompensationInterrupted": "undoing interrupted",
}
_ERRORS = {
    "HandlerTimeout": "timeout",
    "DeadlineExceeded": "deadline",
    "SignalTimeout": "no signal in time",
    "SignalRefused": "signal refused",
}


def _covered(log: list[Event], world: World) -> Counter[str]:
    found = Counter(world.notes.covered)
    found["transaction committed"] += len(world.notes.committed)
    found["fork"] += len(world.notes.forked)
    for event in log:
        if name := _EVENTS.get(event.type):
            found[name] += 1
        if event.type == "JobClaimed" and event.data["reason"] == "takeover":
            found["take-over"] += 1
        elif event.type in ("SubStepFailed", "JobFailed") and (name := _ERRORS.get(event.data["error"]["type"])):
            found[name] += 1
        elif event.type == "SubStepInterrupted" and event.data["cause"] == "commit unknown":
            found["commit unknown"] += 1
        elif event.type == "JobReleased" and event.data["reason"] == "waits":
            found["given back"] += 1
        elif event.type == "JobParked" and event.data["reason"] == "compensation failed":
            found["parked undoing"] += 1
        elif "context_refused" in event.data:
            found["context refused"] += 1
    return found


# --- the smallest story ----------------------------------------------------------------------------------------------


def shrunk(verdict: Verdict) -> Verdict:
    """The verdict on a smaller story that breaks the same invariant."""
    broken, tried = next(iter(verdict.broken)), 0
    while tried < SHRINKING_MAX:
        for smaller in smaller_stories(verdict.story):
            tried += 1
            found = judge(smaller)
            if broken in found.broken:
                verdict = found
                break
            if tried >= SHRINKING_MAX:
                break
        else:
            break
    return verdict


_SIMPLER: tuple[dict[str, Any], ...] = (
    *({"resumes": 0}, {"recovery_s": 0.0}, {"luck": 0}, {"deadline_s": None}, {"stops_writers": False}),
    *({"compensate_on": ()}, {"releases": False}),
)
_OPTIONS = (
    *("after", "needs", "optional", "when", "attempts", "jitter", "timeout_s", "deadline_s", "on_interrupt"),
    *("transactional", "wait", "defaults", "fan_out", "undo"),
)


def smaller_stories(story: Story) -> Iterator[Story]:
    """Stories with one thing less, the biggest cuts first."""
    for place in range(len(story.phases)):
        yield _without_edges_to_nothing(replace(story, phases=_without(story.phases, place)))
    for place in range(len(story.faults)):
        yield replace(story, faults=_without(story.faults, place))
    for place in range(len(story.by_hand)):
        yield replace(story, by_hand=_without(story.by_hand, place))
    for simpler in _SIMPLER:
        if any(getattr(story, name) != value for name, value in simpler.items()):
            yield replace(story, **simpler)
    for at, phase in enumerate(story.phases):
        for simpler_phase in _simpler_phases(phase):
            phases = (*story.phases[:at], simpler_phase, *story.phases[at + 1 :])
            yield _without_edges_to_nothing(replace(story, phases=phases))
    for at, fault in enumerate(story.faults):
        if isinstance(fault, AppendFault | TransactionFault) and fault.meanwhile != "nothing":
            plain = replace(fault, meanwhile="nothing", action=None)
            yield replace(story, faults=(*story.faults[:at], plain, *story.faults[at + 1 :]))


def _simpler_phases(phase: Any) -> Iterator[Any]:
    for at in range(len(phase.sub_steps)):
        if len(phase.sub_steps) > 1:
            yield replace(phase, sub_steps=_without(phase.sub_steps, at))
    if phase.parallel is not None:
        yield replace(phase, parallel=None)
    for at, step in enumerate(phase.sub_steps):
        for simpler in _simpler_sub_steps(step):
            yield replace(phase, sub_steps=(*phase.sub_steps[:at], simpler, *phase.sub_steps[at + 1 :]))


def _simpler_sub_steps(step: Any) -> Iterator[Any]:
    plain = type(step)(step.name)
    for name in _OPTIONS:
        if getattr(step, name) != getattr(plain, name):
            yield replace(step, **{name: getattr(plain, name)})
    if step.fan_out is not None:
        yield from (replace(step, fan_out=simpler) for simpler in _simpler_fan_outs(step.fan_out))
    if step.undo is not None:
        for name, value in (("attempts", 1), ("timeout_s", None), ("transactional", False)):
            if getattr(step.undo, name) != value:
                yield replace(step, undo=replace(step.undo, **{name: value}))
        yield from (replace(step, undo=simpler) for simpler in _with_simpler_scripts(step.undo))
    yield from _with_simpler_scripts(step)


def _simpler_fan_outs(fan_out: FanOutStory) -> Iterator[FanOutStory]:
    if fan_out.items:
        yield replace(fan_out, items=fan_out.items - 1)
    if fan_out.listed != "plain":
        yield replace(fan_out, listed="plain")
    if fan_out.parallel != 16:
        yield replace(fan_out, parallel=16)


def _with_simpler_scripts(step: Any) -> Iterator[Any]:
    for at in range(len(step.scripts)):
        if len(step.scripts) > 1:
            yield replace(step, scripts=_without(step.scripts, at))
    for at, script in enumerate(step.scripts):
        for simpler in _simpler_scripts(script):
            yield replace(step, scripts=(*step.scripts[:at], simpler, *step.scripts[at + 1 :]))


def _simpler_scripts(script: Any) -> Iterator[Any]:
    for at in range(len(script.deeds)):
        yield replace(script, deeds=_without(script.deeds, at))
    if script.stubborn:
        yield replace(script, stubborn=False)
    if script.end != "return":
        yield replace(script, end="return")


def _without(parts: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    return (*parts[:at], *parts[at + 1 :])


def _without_edges_to_nothing(story: Story) -> Story:
    """The story with no phase that is empty and no edge from a sub-step that is gone."""
    there = {key for key, _ in story.sub_steps()}
    phases = tuple(
        replace(
            phase,
            sub_steps=tuple(
                replace(
                    step,
                    after=tuple(edge for edge in step.after if edge in there),
                    needs=tuple(edge for edge in step.needs if edge in there),
                    defaults=tuple(edge for edge in step.defaults if edge in there and edge in step.needs),
                )
                for step in phase.sub_steps
            ),
        )
        for phase in story.phases
    )
    return replace(story, phases=phases)


# --- as lines --------------------------------------------------------------------------------------------------------


def replay(seed: int, verdict: Verdict) -> str:
    """The story and its log as lines, with what is broken and how to see it again."""
    started = verdict.log[0].recorded_at if verdict.log else ""
    lines = [f"seed {seed}: {name.replace('_', ' ')}: {found}" for name, found in verdict.broken.items()]
    lines += [f"replay: python tests/simulation --seed {seed}", "", *told(verdict.story), ""]
    lines += [_line(event, started) for event in verdict.log]
    return "\n".join(lines)


def _line(event: Event, started: str) -> str:
    said = {name: value for name, value in event.data.items() if name not in ("plan", "traceback", "idempotency_key")}
    where = f"{said.pop('phase')}/{said.pop('sub_step')}" if "sub_step" in said else said.pop("phase", "")
    if "error" in said:
        said["error"] = f"{said['error'].get('type')}: {said['error'].get('message')}"
    rest = " ".join(f"{name}={value}" for name, value in said.items() if value not in (None, [], {}))
    return (
        f"{event.version:4} {seconds_between(started, event.recorded_at):8.3f} s  {event.type} {where} {rest}".rstrip()
    )
