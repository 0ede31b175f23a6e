"""What the runner tells the decider: outcomes of attempts, what happened to their owner, and how things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from steplog.projections.plan import Key, Place, key_of, place_of

ErrorData = dict[str, Any]
"""`{type, message, traceback, retryable}`."""


Answer = Literal[True] | str | ErrorData
"""What `when=` said: True, the reason to skip, or the error it raised."""


class AttemptId(NamedTuple):
    """Which attempt an outcome is of."""

    phase: str
    sub_step: str
    generation: int
    attempt: int
    item: str | None = None
    undoing: bool = False
    """Whether it is an attempt of its compensation."""

    @property
    def key(self) -> Key:
        return key_of(self.phase, self.sub_step)

    @property
    def place(self) -> Place:
        """What cannot run twice at once."""
        return place_of(self.phase, self.sub_step, self.item, undoing=self.undoing)


class Listed(NamedTuple):
    """An item of a fan-out as the log keeps it."""

    key: str
    input: Any


class Completed(NamedTuple):
    """The handler returned; `changed` are the context fields it set."""

    of: AttemptId
    result: Any
    changed: dict[str, Any]
    seconds: float


class Failed(NamedTuple):
    """The handler raised, or took too long. `spread` in [0, 1) is the luck that jitter draws on.

    `undone` where its transaction was rolled back: an attempt that was settled otherwise has had no effect then.
    """

    of: AttemptId
    error: ErrorData
    seconds: float
    spread: float = 0.0
    undone: bool = False


class SkipRaised(NamedTuple):
    """The handler said that there is nothing to do."""

    of: AttemptId
    reason: str
    undone: bool = False


class CheckpointReached(NamedTuple):
    """The handler said where the next attempt may go on."""

    of: AttemptId
    cursor: Any
    changed: dict[str, Any]


class Logged(NamedTuple):
    """The handler wrote lines."""

    of: AttemptId
    lines: list[str]


class Progressed(NamedTuple):
    """The handler said how far it is."""

    of: AttemptId
    done: float
    total: float | None
    note: str | None


class Interrupted(NamedTuple):
    """Attempts in progress have lost their owner: nobody will report their outcomes."""

    cause: Literal["owner died", "handed back", "cancelled"]
    worker_id: str


class CommitUnknown(NamedTuple):
    """The attempt's transaction broke, and nobody knows whether it was committed; once this is recorded it never is."""

    of: AttemptId
    worker_id: str


Fact = Completed | Failed | SkipRaised | CheckpointReached | Progressed | Logged | Interrupted | CommitUnknown


class Situation(NamedTuple):
    """What deciding depends on beside the log."""

    occupied: Set[Place] = frozenset()
    """Sub-steps and items whose earlier attempt is still running although it was settled: they cannot start."""
    stuck: Set[Place] = frozenset()
    """Those of them that have not ended within the grace period."""
    release_after_s: float | None = None
    """A job that only waits, for longer than that, is given back; None where whoever runs it waits for its end."""
    stopping: bool = False
    """The worker stops: nothing new starts."""
    suspects_wait: bool = False
    """Another of the worker's jobs runs what may kill the process: here nothing like that starts."""
    answers: Mapping[Key, Answer] = MappingProxyType({})
    """What conditions have said that is not recorded yet."""
    items: Mapping[Key, Sequence[Listed] | ErrorData] = MappingProxyType({})
    """The items of fan-outs that are not all recorded yet, or why there are none."""
    unfit: Mapping[tuple[Key, str], ErrorData] = MappingProxyType({})
    """By sub-step that waits and id of a signal, why the payload is not what the sub-step waits for."""
    interruptions_max: int = 3
    """Interruptions of one sub-step by its owner's death before the job parks."""
