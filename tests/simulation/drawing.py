"""Drawing a story from a seed: the one place where features of workflows and faults get their share."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from simulation.operators import draw_action
from simulation.story import (
    AppendFault,
    Checkpoint,
    ClaimFault,
    Deed,
    Effect,
    FanOutStory,
    Fault,
    Log,
    Meanwhile,
    PhaseStory,
    Progress,
    ReadFault,
    Script,
    Sleep,
    Story,
    SubStepStory,
    TimeFault,
    TransactionFault,
    TurnFault,
    UndoStory,
    WaitStory,
    Write,
)

APPENDS = 12
"""Faults strike among about as many appends as a story has."""
TRANSACTIONS = 4
TURNS = 120
SIGNALS = ("go", "stop")


def draw_story(seed: int) -> Story:
    """The story of that seed, always the same."""
    random = Random(seed)
    deadline_s = random.choice((*(None,) * 12, 3.0, 12.0))
    compensate_on: Any = random.choice((*((),) * 4, ("failed",), ("cancelled", "failed"), ("cancelled", "failed")))
    phases = _phases(random, late=deadline_s is not None, undone=bool(compensate_on))
    keys = [key for phase in phases for step in phase.sub_steps for key in _keys(phase, step)]
    return Story(
        phases=phases,
        faults=tuple(_fault(random, keys) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4, 6)))),
        by_hand=tuple(draw_action(random, keys) for _ in range(random.choice((0, 0, 1, 1, 2, 3)))),
        resumes=random.choice((0, 0, 1, 2)),
        recovery_s=random.choice((0.0, 0.0, 0.5, 20.0)),
        luck=random.randrange(1 << 32),
        deadline_s=deadline_s,
        stops_writers=random.random() < 0.4,
        compensate_on=compensate_on,
        releases=random.random() < 0.3,
    )


def _keys(phase: PhaseStory, step: SubStepStory) -> list[str]:
    """What a person may name: the sub-step, and some items."""
    key = f"{phase.name}/{step.name}"
    return [key] if step.fan_out is None else [key, f"{key}[i0]", f"{key}[i1]"]


# --- the workflow ----------------------------------------------------------------------------------------------------


def _phases(random: Random, late: bool, undone: bool) -> tuple[PhaseStory, ...]:
    phases: list[PhaseStory] = []
    earlier: list[str] = []
    for number in range(random.choice((1, 1, 2, 2, 3))):
        name = f"p{number}"
        sub_steps = []
        for place in range(random.choice((1, 2, 2, 3, 4))):
            if random.random() < 0.15:
                sub_steps.append(_waiting(random, f"s{place}", earlier))
            else:
                sub_steps.append(_sub_step(random, f"s{place}", earlier, late, undone))
            earlier.append(f"{name}/s{place}")
        phases.append(PhaseStory(name, tuple(sub_steps), random.choice((None, None, None, 1, 2))))
    return tuple(phases)


def _waiting(random: Random, name: str, earlier: list[str]) -> SubStepStory:
    signal = random.choice((None, *SIGNALS))
    seconds = random.choice((0.2, 2.0, 10.0, None if signal else 0.0))
    return SubStepStory(
        name,
        after=tuple(_edges(random, earlier)),
        optional=signal is not None and random.random() < 0.3,
        when=random.choice((*(None,) * 6, "yes", "no")),
        wait=WaitStory(signal, seconds, signal is not None and random.random() < 0.5),
    )


def _edges(random: Random, earlier: list[str]) -> list[str]:
    return random.sample(earlier, min(len(earlier), random.choice((0, 0, 1, 1, 2))))


def _sub_step(random: Random, name: str, earlier: list[str], late: bool, undone: bool) -> SubStepStory:
    edges = _edges(random, earlier)
    transactional = random.random() < 0.2
    needs = tuple(edge for edge in edges if random.random() < 0.6)
    attempts = random.choice((1, 1, 2, 3))
    timeout_s = random.choice((None, None, None, None, 2.0))
    return SubStepStory(
        name,
        after=tuple(edge for edge in edges if edge not in needs),
        needs=needs,
        defaults=tuple(need for need in needs if random.random() < 0.3),
        optional=random.random() < 0.3,
        when=random.choice((*(None,) * 9, "yes", "no", "a is set", "raises" if random.random() < 0.3 else "yes")),
        attempts=attempts,
        wait_s=random.choice((0.5, 1.0, 4.0)),
        jitter=random.choice((0.0, 0.5)),
        timeout_s=timeout_s,
        deadline_s=random.choice((*(None,) * 9, 1.0, 4.0, 10.0)),
        transactional=transactional,
        on_interrupt=random.choice(("retry",) * 6 + ("hold", "fail")),
        fan_out=_fan_out(random) if random.random() < 0.15 else None,
        undo=_undo(random) if undone and random.random() < 0.7 else None,
        scripts=tuple(
            _script(random, late or timeout_s is not None, transactional) for _ in range(random.choice((1, 1, 2, 3)))
        ),
    )


def _fan_out(random: Random) -> FanOutStory:
    listed: Any = random.choice(("plain",) * 8 + ("shifted",) * 4 + ("twice", "raises"))
    return FanOutStory(random.choice((0, 1, 2, 3, 3, 4, 5, 6)), random.choice((1, 2, 2, 16)), listed)


def _undo(random: Random) -> UndoStory:
    timeout_s, transactional = random.choice((*(None,) * 4, 2.0)), random.random() < 0.2
    return UndoStory(
        attempts=random.choice((1, 2, 3)),
        wait_s=random.choice((0.5, 4.0)),
        timeout_s=timeout_s,
        transactional=transactional,
        scripts=tuple(_undoing(random, timeout_s is not None, transactional) for _ in range(random.choice((1, 1, 2)))),
    )


def _undoing(random: Random, may_time_out: bool, transactional: bool) -> Script:
    """Seldom one that writes to the context: that is refused."""
    script = _script(random, may_time_out, transactional)
    if random.random() < 0.2:
        return script
    return replace(script, deeds=tuple(deed for deed in script.deeds if not isinstance(deed, Write)))


def _script(random: Random, may_time_out: bool, transactional: bool) -> Script:
    deeds = [_deed(random) for _ in range(random.choice((1, 1, 2, 3, 4)))]
    if transactional:
        deeds = [part for deed in deeds for part in (Effect(), deed)][: random.choice((1, 3, 8))]
    stubborn = random.random() < (0.4 if may_time_out else 0.05)
    if may_time_out and random.random() < 0.5:
        deeds.append(Sleep(random.choice((2.5, 5.0, 30.0))))
    rare = random.choice(("unrecordable", "kill", "refused" if transactional else "cancel"))
    ends: Any = ("return",) * 12 + ("raise",) * 3 + ("fatal", "skip", rare)
    return Script(tuple(deeds), random.choice(ends), stubborn)


def _deed(random: Random) -> Deed:
    match random.randrange(9):
        case 0 | 1 | 2:
            return Sleep(random.choice((0.0, 0.1, 0.3, 1.0, 1.5)))
        case 3 | 4:
            return Write(random.choice(("a", "b")), random.randrange(1, 4))
        case 5:
            return Write("grown", random.randrange(10))
        case 6:
            return Checkpoint(random.randrange(1, 100))
        case 7:
            return Log(random.randrange(100))
        case _:
            return Progress(random.randrange(100))


# --- the faults ------------------------------------------------------------------------------------------------------


def _fault(random: Random, keys: list[str]) -> Fault:
    match random.randrange(13):
        case 0 | 1 | 2 | 3 | 4:
            meanwhile = _meanwhile(random, nothing=2)
            return AppendFault(
                random.randrange(1, APPENDS),
                random.choice(("lost", "unanswered", "slow", "slow answer", "no room")),
                random.choice((0.05, 0.5, 3.0)),
                meanwhile,
                draw_action(random, keys) if meanwhile == "operator" else None,
            )
        case 5 | 6 | 7:
            what = _meanwhile(random, nothing=0)
            action = draw_action(random, keys) if what == "operator" else None
            if random.random() < 0.5:
                return TurnFault(random.randrange(1, TURNS), what, action)
            return TimeFault(random.randrange(1, 120) * 0.05, what, action)
        case 8 | 9:
            meanwhile = _meanwhile(random, nothing=8)
            return TransactionFault(
                random.randrange(1, TRANSACTIONS),
                random.choice(("broken", "busy", "refused", "lost", "unanswered", "late", "late and lost")),
                random.choice((0.05, 0.5, 3.0)),
                meanwhile,
                draw_action(random, keys) if meanwhile == "operator" else None,
            )
        case 10:
            return ClaimFault(random.randrange(1, 4), random.choice(("lost", "unanswered")))
        case _:
            return ReadFault(random.randrange(1, 4))


def _meanwhile(random: Random, *, nothing: int) -> Meanwhile:
    kinds: Any = ("nothing",) * nothing + ("operator",) * 4 + ("crash",) * 3 + ("robbery",) * 2 + ("stop",)
    chosen: Meanwhile = random.choice(kinds)
    return chosen
