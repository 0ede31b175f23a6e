"""The workflow of a story as code: handlers that do what their scripts say, and tell the witness."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, cast

from pydantic import BaseModel
from simulation.notes import Asked, Call, Kept, Listed, Notes, Outcome
from simulation.story import (
    Checkpoint,
    Deed,
    Effect,
    FanOutStory,
    Log,
    Progress,
    Script,
    Sleep,
    Story,
    SubStepStory,
    UndoStory,
    WaitStory,
    Write,
)
from simulation.transacting import REFUSED
from simulation.turns import current

from steplog.engine.context import Context
from steplog.engine.definition import AnySubStep, Definition, Phase
from steplog.engine.errors import AttemptOver
from steplog.engine.injection import result
from steplog.engine.policies import Fatal, Retry, Skip
from steplog.engine.step import Job, Step
from steplog.engine.transaction import Transaction
from steplog.eventstore.errors import StoreError


class Shared(Context):
    """The context of every simulated workflow."""

    a: int = 0
    b: int = 0
    grown: list[int] = []


class Given(BaseModel, frozen=True):
    """The input of every simulated workflow."""

    n: int = 0


Sent: Any = int | str | None
"""What signals are to be."""


class Surroundings(Protocol):
    """What handlers and conditions see of the simulation."""

    notes: Notes

    def next_effect(self) -> int:
        """A number that no other effect has."""
        ...

    def process(self) -> int:
        """The number of the process that the caller runs in."""
        ...

    def now(self) -> float:
        """Seconds of the loop."""
        ...

    def version(self) -> int:
        """How long the job's log is now."""
        ...

    def kill(self) -> None:
        """Let the caller's process die at its next await."""


def definition_of(story: Story, around: Surroundings) -> Definition[Given, Shared]:
    """The story's workflow."""
    definition = Definition("simulated", Given, Shared, "1", story.deadline_s, story.compensate_on)
    declared: dict[str, AnySubStep] = {}
    for phase_story in story.phases:
        phase = definition.phase(phase_story.name, parallel=phase_story.parallel)
        for told in phase_story.sub_steps:
            key = f"{phase_story.name}/{told.name}"
            if told.wait is not None:
                declared[key] = _waiting(told, told.wait, phase, key, declared, around)
                continue
            declared[key] = _declare(told, phase, key, declared, around)
            if told.undo is not None:
                undo = told.undo
                retry = Retry(undo.attempts, undo.wait_s, 2.0, 9.0, 0.0)
                undoing = phase.compensate(declared[key], retry=retry, timeout=undo.timeout_s)
                undoing(_undoing(undo, declared[key], around))
    return definition


def _declare(
    told: SubStepStory, phase: Phase[Given, Shared], key: str, declared: dict[str, AnySubStep], around: Surroundings
) -> AnySubStep:
    options: dict[str, Any] = {
        "name": told.name,
        "after": [declared[edge] for edge in told.after],
        "when": _condition(told, key, around) if told.when else None,
        "optional": told.optional,
        "retry": Retry(told.attempts, told.wait_s, 2.0, 9.0, told.jitter),
        "timeout": told.timeout_s,
        "deadline": told.deadline_s,
        "on_interrupt": told.on_interrupt,
    }
    if told.fan_out is None:
        return phase.sub_step(**options)(_handler(told, key, declared, around))
    items = _listing(told.fan_out, key, around)
    mapped = phase.map(items=items, parallel=told.fan_out.parallel, **options)
    sub_step: AnySubStep = mapped(_handler(told, key, declared, around))
    return sub_step


def _listing(fan_out: FanOutStory, key: str, around: Surroundings) -> Callable[[Job[Any, Shared]], list[str]]:
    def items(job: Job[Any, Shared]) -> list[str]:
        if fan_out.listed == "raises":
            raise ZeroDivisionError("asked for")
        first = job.context.a if fan_out.listed == "shifted" else 0
        listed = [f"i{number}" for number in range(first, first + fan_out.items)]
        if fan_out.listed == "twice":
            listed += listed[:1]
        around.notes.listed.append(Listed(around.process(), key, listed, around.version()))
        return listed

    return items


def _waiting(
    told: SubStepStory,
    wait: WaitStory,
    phase: Phase[Given, Shared],
    key: str,
    declared: dict[str, AnySubStep],
    around: Surroundings,
) -> AnySubStep:
    options: dict[str, Any] = {
        "name": told.name,
        "after": [declared[edge] for edge in told.after],
        "when": _condition(told, key, around) if told.when else None,
    }
    if wait.signal is None:
        return phase.sleep(wait.seconds or 0.0, **options)
    if wait.has_default:
        options["default"] = 0
    return phase.wait_for_signal(wait.signal, Sent, timeout=wait.seconds, optional=told.optional, **options)


def _condition(told: SubStepStory, key: str, around: Surroundings) -> Callable[[Job[Any, Shared]], bool | Skip]:
    def when(job: Job[Any, Shared]) -> bool | Skip:
        if told.when == "raises":
            around.notes.asked.append(
                Asked(around.process(), key, "raises", job.context.model_dump(), around.version())
            )
            raise ZeroDivisionError("asked for")
        answer = {"yes": True, "no": False}.get(told.when or "", job.context.a > 0)
        around.notes.asked.append(Asked(around.process(), key, answer, job.context.model_dump(), around.version()))
        return answer or Skip("not now")

    return when


def _handler(told: SubStepStory, key: str, declared: dict[str, AnySubStep], around: Surroundings) -> Callable[..., Any]:
    """A handler whose parameters are the results that the sub-step needs; of a fan-out, behind the item."""

    def begun(step: Step[Any, Shared], item: str | None, results: dict[str, Any]) -> tuple[Script, Call]:
        script = (told if item is None else told.of_item(item)).script(step.attempt)
        call = _begun(key if item is None else f"{key}[{item}]", step, results, around)
        around.notes.calls.append(call)
        return script, call

    async def work(step: Step[Any, Shared], *, of: str | None = None, **results: Any) -> Any:
        script, call = begun(step, of, results)
        return await _perform(script, step, call, around)

    async def work_on(item: str, step: Step[Any, Shared], **results: Any) -> Any:
        return await work(step, of=item, **results)

    def transact(step: Step[Any, Shared], tx: Transaction, *, of: str | None = None, **results: Any) -> Any:
        script, call = begun(step, of, results)
        return _perform_inside(script, step, tx, call, around)

    def transact_on(item: str, step: Step[Any, Shared], tx: Transaction, **results: Any) -> Any:
        return transact(step, tx, of=item, **results)

    needs = {need.replace("/", "_"): _result_of(declared[need], need in told.defaults) for need in told.needs}
    if told.fan_out is None:
        return _asking_for(transact if told.transactional else work, needs, transactional=told.transactional)
    on_item = transact_on if told.transactional else work_on
    return _asking_for(on_item, needs, transactional=told.transactional, item=True)


def _result_of(source: AnySubStep, may_be_missing: bool) -> Any:
    return result(source, default=None) if may_be_missing else result(source)


def _undoing(told: UndoStory, undone: AnySubStep, around: Surroundings) -> Callable[..., Any]:
    """The handler of a compensation: it is given what its sub-step returned."""

    def begun(step: Step[Any, Shared], own: Any) -> tuple[Script, Call]:
        call = _begun(undone.key, step, {"own": own}, around)
        around.notes.undone.append(call)
        return told.script(step.attempt), call

    async def undo(step: Step[Any, Shared], own: Any) -> Any:
        script, call = begun(step, own)
        return await _perform(script, step, call, around)

    def undo_inside(step: Step[Any, Shared], tx: Transaction, own: Any) -> Any:
        script, call = begun(step, own)
        return _perform_inside(script, step, tx, call, around)

    handler: Callable[..., Any] = undo_inside if told.transactional else undo
    return _asking_for(handler, {"own": result(undone)}, transactional=told.transactional)


def _asking_for(
    handler: Callable[..., Any], results: dict[str, Any], *, transactional: bool, item: bool = False
) -> Callable[..., Any]:
    """The handler with a signature that says what it is to be given."""
    kind = inspect.Parameter
    named: dict[str, Any] = {
        **({"item": str} if item else {}),
        "step": Step,
        **({"tx": Transaction} if transactional else {}),
    }
    parameters = [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in named]
    parameters += [kind(name, kind.KEYWORD_ONLY, default=marker) for name, marker in results.items()]
    handler.__annotations__ = named
    handler.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return handler


def _begun(key: str, step: Step[Any, Shared], results: dict[str, Any], around: Surroundings) -> Call:
    return Call(
        process=around.process(),
        key=key,
        attempt=step.attempt,
        generation=step.generation,
        idempotency_key=step.idempotency_key,
        at=around.now(),
        version=around.version(),
        context=step.context.model_dump(),
        cursor=step.cursor,
        results=results,
        input=step.input.model_dump(),
    )


async def _perform(script: Script, step: Step[Any, Shared], call: Call, around: Surroundings) -> Any:
    try:
        for deed in script.deeds:
            await _do(deed, step, call, around, script.stubborn)
        if script.end == "kill":
            around.kill()
            await asyncio.get_running_loop().create_future()
        if script.end == "cancel":
            cast(Any, asyncio.current_task()).cancel()
            await asyncio.sleep(0.0)
    except asyncio.CancelledError:
        _end(call, "cancelled" if step.cancelled else "own cancel", step, around)
        raise
    except AttemptOver:
        _end(call, "over", step, around)
        raise
    # Without a transaction there is nothing that the store could refuse.
    return _conclude(replace(script, end="return") if script.end == "refused" else script, step, call, around)


def _perform_inside(script: Script, step: Step[Any, Shared], tx: Transaction, call: Call, around: Surroundings) -> Any:
    """The same in a transaction, in a thread of its own, which nobody can cancel."""
    try:
        for deed in script.deeds:
            _do_inside(deed, step, tx, call, around)
        if script.end == "kill":
            around.kill()
            current().stand()
        if script.end == "refused":
            tx.execute(REFUSED)
    except (AttemptOver, StoreError):
        _end(call, "over", step, around)
        raise
    return _conclude(script, step, call, around)


async def _do(deed: Deed, step: Step[Any, Shared], call: Call, around: Surroundings, stubborn: bool) -> None:
    match deed:
        case Sleep(seconds=seconds):
            await _sleep(seconds, stubborn)
        case Checkpoint(cursor=cursor):
            context = step.context.model_dump()
            await step.checkpoint(cursor)
            call.checkpoints.append(Kept(cursor, context, around.version()))
        case _:
            _say(deed, step, call)


def _do_inside(deed: Deed, step: Step[Any, Shared], tx: Transaction, call: Call, around: Surroundings) -> None:
    match deed:
        case Sleep(seconds=seconds):
            current().sleep(seconds)
        case Checkpoint(cursor=cursor):
            context = step.context.model_dump()
            call.effects.append([])
            step.checkpoint(cursor)
            call.checkpoints.append(Kept(cursor, context, around.version()))
        case Effect():
            effect = around.next_effect()
            tx.execute("insert into effects values (%s)", [effect])
            call.effects[-1].append(effect)
        case _:
            _say(deed, step, call)


def _say(deed: Deed, step: Step[Any, Shared], call: Call) -> None:
    match deed:
        case Write(field="grown", value=value):
            step.context.grown.append(value)
        case Write(field=field, value=value):
            setattr(step.context, field, value)
        case Progress(done=done):
            call.told.append(done)
            step.progress(done, 100)
        case Log(line=line):
            call.lines.append(f"line {line}")
            step.log(f"line {line}")


async def _sleep(seconds: float, stubborn: bool) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        try:
            await asyncio.sleep(max(0.0, until - loop.time()))
        except asyncio.CancelledError:
            if not stubborn:
                raise
        else:
            return


def _conclude(script: Script, step: Step[Any, Shared], call: Call, around: Surroundings) -> Any:
    call.result = f"{call.key}#{call.attempt}"
    match script.end:
        case "raise":
            _end(call, "raise", step, around)
            raise RuntimeError("as the script says")
        case "fatal":
            _end(call, "fatal", step, around)
            raise Fatal("as the script says")
        case "skip":
            _end(call, "skip", step, around)
            raise Skip("as the script says")
        case "unrecordable":
            _end(call, "unrecordable", step, around)
            return object()
        case "refused":
            _end(call, "refused", step, around)
            return call.result
        case _:
            _end(call, "return", step, around)
            return call.result


def _end(call: Call, outcome: Outcome, step: Step[Any, Shared], around: Surroundings) -> None:
    call.outcome = outcome
    call.ended_at = around.now()
    call.final = step.context.model_dump()
