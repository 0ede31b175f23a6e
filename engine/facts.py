"""What the runner tells the decider: outcomes of attempts, what happened to their owner, and how things stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from steplog.projections.plan import Key, key_of

ErrorData = dict[str, Any]
"""`{type, message, traceback, retryable}`."""


Answer = Literal[True] | str | ErrorData
"""What `when=` said: True, the reason to skip, or the error it raised."""


@dataclass(frozen=True, slots=True)
class AttemptId:
    """Which attempt an outcome is of."""

    phase: str
    sub_step: str
    generation: int
    attempt: int

    @property
    def key(self) -> Key:
        return key_of(self.phase, self.sub_step)


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; `changed` are the context fields it set."""

    of: AttemptId
    result: Any
    changed: dict[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, or took too long. `spread` in [0, 1) is the luck that jitter draws on."""

    of: AttemptId
    error: ErrorData
    seconds: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class SkipRaised:
    """The handler said that there is nothing to do."""

    of: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointReached:
    """The handler said where the next attempt may go on."""

    of: AttemptId
    cursor: Any
    changed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progressed:
    """The handler said how far it is."""

    of: AttemptId
    done: float
    total: float | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Attempts in progress have lost their owner: nobody will report their outcomes."""

    cause: Literal["owner died", "handed back"]
    worker_id: str


Fact = Completed | Failed | SkipRaised | CheckpointReached | Progressed | Interrupted


@dataclass(frozen=True, slots=True)
class Situation:
    """What deciding depends on beside the log."""

    occupied: frozenset[Key] = field(default_factory=frozenset)
    """Sub-steps whose earlier attempt is still running although it was settled: they cannot start."""
    stuck: frozenset[Key] = field(default_factory=frozenset)
    """Those of them that have not ended within the grace period."""
    stopping: bool = False
    """The worker stops: nothing new starts."""
    answers: Mapping[Key, Answer] = field(default_factory=dict)
    """What conditions have said that is not recorded yet."""
    interruptions_max: int = 3
    """Interruptions of one sub-step by its owner's death before the job parks."""
