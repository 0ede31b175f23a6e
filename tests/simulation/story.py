"""A story: one workflow, what its handlers do, and the faults it meets. Plain data, drawn from a seed, told as lines.

Everything that can happen in a simulation is said here, so that a story can be cut down part by part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from simulation.operators import Action

from steplog.engine.definition import CompensateOn
from steplog.projections.plan import OnInterrupt

Meanwhile = Literal["nothing", "operator", "crash", "robbery", "stop"]
"""What else happens: an operator appends, the owner's process dies, another takes the job from it while it lives, or
it is asked to hand back."""


# --- what a handler does ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Write:
    """Give a context field a value; `grown` lets the list grow in place."""

    field: Literal["a", "b", "grown"]
    value: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    cursor: int


@dataclass(frozen=True, slots=True)
class Progress:
    done: int


@dataclass(frozen=True, slots=True)
class Log:
    line: int


@dataclass(frozen=True, slots=True)
class Effect:
    """A statement in the attempt's transaction; where it has none, nothing."""


Deed = Sleep | Write | Checkpoint | Progress | Log | Effect
End = Literal["return", "raise", "fatal", "skip", "unrecordable", "cancel", "refused", "kill"]
"""cancel: it cancels its own task; refused: the store takes nothing more in its transaction, and it returns."""


@dataclass(frozen=True, slots=True)
class Script:
    """What one attempt does. A stubborn one goes on when it is cancelled."""

    deeds: tuple[Deed, ...] = ()
    end: End = "return"
    stubborn: bool = False


# --- the workflow ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WaitStory:
    """What a sub-step that only waits waits for: for its time, or for a number as a signal."""

    signal: str | None = None
    seconds: float | None = 1.0
    has_default: bool = False


@dataclass(frozen=True, slots=True)
class FanOutStory:
    """The items of a sub-step that is one of many, and how many of them run at once.

    shifted: which there are depends on the context; twice: two of them have one key; raises: the list cannot be had.
    """

    items: int = 2
    parallel: int = 16
    listed: Literal["plain", "shifted", "twice", "raises"] = "plain"


@dataclass(frozen=True, slots=True)
class UndoStory:
    """How what a sub-step did is undone."""

    attempts: int = 1
    wait_s: float = 1.0
    timeout_s: float | None = None
    transactional: bool = False
    scripts: tuple[Script, ...] = (Script(),)

    def script(self, attempt: int) -> Script:
        return self.scripts[min(attempt, len(self.scripts)) - 1]


@dataclass(frozen=True, slots=True)
class SubStepStory:
    """A sub-step as declared, and its attempts: the last script serves all further ones. One that waits has none.

    Each item of a fan-out has the scripts from its own place on, and the first items have them again.
    """

    name: str
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    optional: bool = False
    when: Literal["yes", "no", "raises", "a is set"] | None = None
    attempts: int = 1
    wait_s: float = 1.0
    jitter: float = 0.0
    timeout_s: float | None = None
    deadline_s: float | None = None
    on_interrupt: OnInterrupt = "retry"
    transactional: bool = False
    wait: WaitStory | None = None
    fan_out: FanOutStory | None = None
    undo: UndoStory | None = None
    scripts: tuple[Script, ...] = (Script(),)

    def script(self, attempt: int) -> Script:
        return self.scripts[min(attempt, len(self.scripts)) - 1]

    def of_item(self, item: str) -> SubStepStory:
        """One of its items as if that were a sub-step: condition, deadline and tolerance are the group's."""
        scripts = self.scripts[item_number(item) % len(self.scripts) :]
        return replace(self, when=None, deadline_s=None, optional=False, fan_out=None, undo=None, scripts=scripts)


def item_number(item: str) -> int:
    """Which item of all that there may be."""
    return int(item.removeprefix("i"))


@dataclass(frozen=True, slots=True)
class PhaseStory:
    name: str
    sub_steps: tuple[SubStepStory, ...]
    parallel: int | None = None


# --- the faults ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AppendFault:
    """What happens to the `number`-th append that is sent.

    lost: it does not arrive and is sent again; unanswered: it arrives, and is sent again; slow: it arrives later;
    slow answer: it arrives, and the answer later; no room: the writer is full. What happens meanwhile happens in
    between.
    """

    number: int
    kind: Literal["lost", "unanswered", "slow", "slow answer", "no room"]
    seconds: float
    meanwhile: Meanwhile = "nothing"
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class TurnFault:
    """What happens before the `turn`-th turn of the loop in which a process lives."""

    turn: int
    what: Meanwhile
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class TimeFault:
    """What happens at that time, in seconds."""

    seconds: float
    what: Meanwhile
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class ClaimFault:
    """The `number`-th claim fails: without effect (lost), or with it (unanswered)."""

    number: int
    kind: Literal["lost", "unanswered"]


@dataclass(frozen=True, slots=True)
class ReadFault:
    """The `number`-th reading of the log fails."""

    number: int


@dataclass(frozen=True, slots=True)
class TransactionFault:
    """What happens to the `number`-th transaction of a handler.

    broken: its connection breaks at a statement; busy: the head is not had in time, once; refused: the store is not
    able to take its append; lost: its commit is not carried out, and nobody knows; unanswered: it is, and nobody knows;
    late, or late and lost: that takes seconds, in which the head is locked. What happens meanwhile happens right after.
    """

    number: int
    kind: Literal["broken", "busy", "refused", "lost", "unanswered", "late", "late and lost"]
    seconds: float
    meanwhile: Meanwhile = "nothing"
    action: Action | None = None


Fault = AppendFault | TurnFault | TimeFault | ClaimFault | ReadFault | TransactionFault


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that happens but what follows from it."""

    phases: tuple[PhaseStory, ...]
    faults: tuple[Fault, ...] = ()
    by_hand: tuple[Action, ...] = ()
    """What a person does, one after the other, where the job has stopped or ended."""
    resumes: int = 0
    """How often the job is resumed where it has stopped and nothing is left to be done by hand."""
    recovery_s: float = 0.0
    """How long a job waits until another process takes it over."""
    luck: int = 0
    """The seed of jitter."""
    deadline_s: float | None = None
    stops_writers: bool = False
    """Whether nobody else writes to the store while a handler's transaction is open."""
    compensate_on: tuple[CompensateOn, ...] = ()
    releases: bool = False
    """Whether a job that only waits is given back to the store, and taken up when it is due."""

    def sub_steps(self) -> Iterator[tuple[str, SubStepStory]]:
        """By key."""
        for phase in self.phases:
            for sub_step in phase.sub_steps:
                yield f"{phase.name}/{sub_step.name}", sub_step


# --- as lines --------------------------------------------------------------------------------------------------------


def told(story: Story) -> Iterator[str]:
    """The story as lines that a person can read; what is as usual is left out."""
    for phase in story.phases:
        yield f"phase {phase.name}" + (f", {phase.parallel} at once" if phase.parallel else "")
        for sub_step in phase.sub_steps:
            yield f"  {_declared(sub_step)}"
            if sub_step.wait:
                continue
            yield from _attempts("attempt", sub_step.scripts)
            if sub_step.undo:
                yield f"    undone: {_undone(sub_step.undo)}"
                yield from _attempts("undoing", sub_step.undo.scripts)
    for fault in story.faults:
        yield _struck(fault)
    for action in story.by_hand:
        yield f"where it has stopped, {action}"
    if story.deadline_s is not None:
        yield f"the job's deadline is {story.deadline_s:g} s"
    if story.stops_writers:
        yield "a transaction stops all other writers"
    if story.compensate_on:
        yield f"what is done is undone where the job is {' or '.join(story.compensate_on)}"
    if story.releases:
        yield "where it only waits it is given back"
    if story.resumes:
        yield f"where it stops for a person it is resumed, {story.resumes} times at most"
    if story.recovery_s:
        yield f"another process takes over after {story.recovery_s:g} s"


def _attempts(what: str, scripts: tuple[Script, ...]) -> Iterator[str]:
    for number, script in enumerate(scripts, 1):
        more = "+" if number == len(scripts) else ""
        yield f"    {what} {number}{more}: {_done(script)}"


def _undone(undo: UndoStory) -> str:
    said = [
        f"{undo.attempts} attempts {undo.wait_s:g} s apart" if undo.attempts > 1 else "",
        f"timeout {undo.timeout_s:g} s" if undo.timeout_s is not None else "",
        "transactional" if undo.transactional else "",
    ]
    return "; ".join(part for part in said if part) or "once"


def _declared(step: SubStepStory) -> str:
    said = [
        step.name,
        f"after {', '.join(step.after)}" if step.after else "",
        f"needs {', '.join(step.needs)}" if step.needs else "",
        f"which may be missing: {', '.join(step.defaults)}" if step.defaults else "",
        "optional" if step.optional else "",
        f"when {step.when}" if step.when else "",
        f"{step.attempts} attempts {step.wait_s:g} s apart" if step.attempts > 1 else "",
        f"jitter {step.jitter:g}" if step.attempts > 1 and step.jitter else "",
        f"timeout {step.timeout_s:g} s" if step.timeout_s is not None else "",
        f"deadline {step.deadline_s:g} s" if step.deadline_s is not None else "",
        f"interrupted: {step.on_interrupt}" if step.on_interrupt != "retry" else "",
        "transactional" if step.transactional else "",
        _waited_for(step.wait) if step.wait else "",
        _fanned_out(step.fan_out) if step.fan_out else "",
    ]
    return "; ".join(part for part in said if part)


def _fanned_out(fan_out: FanOutStory) -> str:
    listed = {
        "plain": "",
        "shifted": ", which depend on a",
        "twice": ", the first one twice",
        "raises": ", which cannot be listed",
    }
    return f"for each of {fan_out.items} items{listed[fan_out.listed]}, {fan_out.parallel} at once"


def _waited_for(wait: WaitStory) -> str:
    for_time = f"{wait.seconds:g} s" if wait.seconds is not None else "however long"
    ending = ", then goes on without" if wait.has_default else ""
    return f"waits for signal {wait.signal}, {for_time}{ending}" if wait.signal else f"waits {for_time}"


def _done(script: Script) -> str:
    stubborn = ["goes on when it is cancelled"] if script.stubborn else []
    return ", ".join([*(_deed(deed) for deed in script.deeds), script.end, *stubborn])


def _deed(deed: Deed) -> str:
    match deed:
        case Sleep(seconds=seconds):
            return f"sleep {seconds:g} s"
        case Write(field="grown", value=value):
            return f"append {value} to grown"
        case Write(field=field, value=value):
            return f"{field} = {value}"
        case Checkpoint(cursor=cursor):
            return f"checkpoint {cursor}"
        case Progress(done=done):
            return f"progress {done}"
        case Log(line=line):
            return f"log {line}"
        case Effect():
            return "effect"


def _struck(fault: Fault) -> str:
    match fault:
        case AppendFault(number=number, kind=kind, seconds=seconds):
            said = f"append {number}: {kind}" + (f", {seconds:g} s" if kind != "no room" else "")
            meanwhile = fault.meanwhile if fault.action is None else f"{fault.meanwhile}: {fault.action}"
            return said if fault.meanwhile == "nothing" else f"{said}, meanwhile {meanwhile}"
        case TurnFault(turn=turn, what=what, action=action):
            return f"turn {turn}: {what}" + (f": {action}" if action else "")
        case TimeFault(seconds=seconds, what=what, action=action):
            return f"at {seconds:g} s: {what}" + (f": {action}" if action else "")
        case ClaimFault(number=number, kind=kind):
            return f"claim {number}: {kind}"
        case TransactionFault(number=number, kind=kind, seconds=seconds, meanwhile=meanwhile, action=action):
            said = f"transaction {number}: {kind}" + (f", {seconds:g} s" if kind.startswith("late") else "")
            more = f", meanwhile {meanwhile}" + (f": {action}" if action else "")
            return said if meanwhile == "nothing" else said + more
        case ReadFault(number=number):
            return f"reading {number}: the store is away"
