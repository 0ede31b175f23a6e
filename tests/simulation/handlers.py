"""The workflow of a story as code: handlers that do what their scripts say, and tell the witness."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from simulation.notes import Asked, Call, Kept, Notes, Outcome
from simulation.story import Checkpoint, Deed, Progress, Script, Sleep, Story, SubStepStory, Write

from steplog.engine.context import Context
from steplog.engine.definition import AnySubStep, Definition
from steplog.engine.errors import AttemptOver
from steplog.engine.injection import result
from steplog.engine.policies import Fatal, Retry, Skip
from steplog.engine.step import Job, NoInput, Step


class Shared(Context):
    """The context of every simulated workflow."""

    a: int = 0
    b: int = 0
    grown: list[int] = []


class Surroundings(Protocol):
    """What handlers and conditions see of the simulation."""

    notes: Notes

    def process(self) -> int:
        """The number of the process that the caller runs in."""
        ...

    def version(self) -> int:
        """How long the job's log is now."""
        ...

    def kill(self) -> None:
        """Let the caller's process die at its next await."""


def definition_of(story: Story, around: Surroundings) -> Definition[NoInput, Shared]:
    """The story's workflow."""
    definition = Definition("simulated", NoInput, Shared, "1")
    declared: dict[str, AnySubStep] = {}
    for phase_story in story.phases:
        phase = definition.phase(phase_story.name, parallel=phase_story.parallel)
        for told in phase_story.sub_steps:
            key = f"{phase_story.name}/{told.name}"
            declare = phase.sub_step(
                name=told.name,
                after=[declared[edge] for edge in told.after],
                when=_condition(told, key, around) if told.when else None,
                optional=told.optional,
                retry=Retry(told.attempts, told.wait_s, 2.0, 9.0, told.jitter),
                timeout=told.timeout_s,
                on_interrupt=told.on_interrupt,
            )
            declared[key] = declare(_handler(told, key, declared, around))
    return definition


def _condition(told: SubStepStory, key: str, around: Surroundings) -> Callable[[Job[Any, Shared]], bool | Skip]:
    def when(job: Job[Any, Shared]) -> bool | Skip:
        if told.when == "raises":
            around.notes.asked.append(Asked(key, "raises", job.context.model_dump(), around.version()))
            raise ZeroDivisionError("asked for")
        answer = {"yes": True, "no": False}.get(told.when or "", job.context.a > 0)
        around.notes.asked.append(Asked(key, answer, job.context.model_dump(), around.version()))
        return answer or Skip("not now")

    return when


def _handler(
    told: SubStepStory, key: str, declared: dict[str, AnySubStep], around: Surroundings
) -> Callable[..., Awaitable[Any]]:
    """A handler whose parameters are the results that the sub-step needs."""

    async def work(step: Step[Any, Shared], **results: Any) -> Any:
        call = _begun(key, step, results, around)
        return await _perform(told.script(step.attempt), step, call, around)

    kind = inspect.Parameter
    parameters = [kind("step", kind.POSITIONAL_OR_KEYWORD)]
    for need in told.needs:
        marker = result(declared[need], default=None) if need in told.defaults else result(declared[need])
        parameters.append(kind(need.replace("/", "_"), kind.KEYWORD_ONLY, default=marker))
    work.__annotations__ = {"step": Step}
    work.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return work


def _begun(key: str, step: Step[Any, Shared], results: dict[str, Any], around: Surroundings) -> Call:
    call = Call(
        process=around.process(),
        key=key,
        attempt=step.attempt,
        generation=step.generation,
        idempotency_key=step.idempotency_key,
        at=asyncio.get_running_loop().time(),
        version=around.version(),
        context=step.context.model_dump(),
        cursor=step.cursor,
        results=results,
    )
    around.notes.calls.append(call)
    return call


async def _perform(script: Script, step: Step[Any, Shared], call: Call, around: Surroundings) -> Any:
    try:
        for deed in script.deeds:
            await _do(deed, step, call, around, script.stubborn)
        if script.end == "kill":
            around.kill()
            await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        _end(call, "cancelled", step)
        raise
    except AttemptOver:
        _end(call, "over", step)
        raise
    return _conclude(script, step, call)


async def _do(deed: Deed, step: Step[Any, Shared], call: Call, around: Surroundings, stubborn: bool) -> None:
    match deed:
        case Sleep(seconds=seconds):
            await _sleep(seconds, stubborn)
        case Write(field="grown", value=value):
            step.context.grown.append(value)
        case Write(field=field, value=value):
            setattr(step.context, field, value)
        case Checkpoint(cursor=cursor):
            context = step.context.model_dump()
            await step.checkpoint(cursor)
            call.checkpoints.append(Kept(cursor, context, around.version()))
        case Progress(done=done):
            step.progress(done, 100)


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


def _conclude(script: Script, step: Step[Any, Shared], call: Call) -> Any:
    call.result = f"{call.key}#{call.attempt}"
    match script.end:
        case "raise":
            _end(call, "raise", step)
            raise RuntimeError("as the script says")
        case "fatal":
            _end(call, "fatal", step)
            raise Fatal("as the script says")
        case "skip":
            _end(call, "skip", step)
            raise Skip("as the script says")
        case "unrecordable":
            _end(call, "unrecordable", step)
            return object()
        case _:
            _end(call, "return", step)
            return call.result


def _end(call: Call, outcome: Outcome, step: Step[Any, Shared]) -> None:
    call.outcome = outcome
    call.ended_at = asyncio.get_running_loop().time()
    call.final = step.context.model_dump()
