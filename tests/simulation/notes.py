"""The witness's notes: what was called, answered, acknowledged and stored, as seen from outside the engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from steplog.eventstore.events import Event
from steplog.projections.state import State

Outcome = Literal["return", "raise", "fatal", "skip", "unrecordable", "own cancel", "refused", "cancelled", "over"]
"""How a call ended; refused: it returned, and the store could not take its transaction's end; cancelled: by the engine,
over: which told it that the attempt was settled otherwise.
"""

Values = dict[str, Any]

AttemptId = tuple[str, int, int]
"""Of what (a sub-step, or an item as `phase/name[item]`), generation and attempt."""


@dataclass(slots=True)
class Kept:
    """A checkpoint that a handler was told is durable, and how long the log was then."""

    cursor: int
    context: Values
    version: int


@dataclass(slots=True)
class Call:
    """One call of a handler: what it was given, what it did, how it ended. Times in seconds of the loop."""

    process: int
    key: str
    attempt: int
    generation: int
    idempotency_key: str
    at: float
    version: int
    """How long the log was at that moment."""
    context: Values
    cursor: Any
    results: Values
    input: Values
    checkpoints: list[Kept] = field(default_factory=list)
    outcome: Outcome | None = None
    ended_at: float | None = None
    result: Any = None
    final: Values = field(default_factory=dict)
    """The draft as the handler left it."""
    lines: list[str] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    """How far it said it was."""
    effects: list[list[int]] = field(default_factory=lambda: [[]])
    """Numbers of the effects between its checkpoints, in the order in which it had them."""

    @property
    def id(self) -> AttemptId:
        """Which attempt it is of."""
        return self.key, self.generation, self.attempt


@dataclass(slots=True)
class Asked:
    """A condition that was asked, and its answer."""

    process: int
    key: str
    answer: bool | str
    context: Values
    version: int


@dataclass(slots=True)
class Listed:
    """Items that were asked for, and what they were said to be."""

    process: int
    key: str
    items: list[str]
    version: int


@dataclass(slots=True)
class Stored:
    """Events that an owner's append put into the log."""

    process: int
    epoch: int
    event_ids: list[str]


@dataclass(slots=True)
class Committed:
    """A transaction of a handler that was committed: its effects, and the events that were stored with them."""

    effects: list[int]
    event_ids: list[str]


@dataclass(slots=True)
class Forked:
    """A fork: its log, of which version of the job, and what it was given."""

    from_version: int
    values: Values
    log: list[Event]


@dataclass(slots=True)
class Life:
    """A process and its ownership of the job. Times in seconds of the loop, None as long as it has not happened."""

    number: int
    epoch: int | None = None
    robbed_at: float | None = None
    stopped_at: float | None = None
    """When it was asked to hand back."""
    ended_at: float | None = None
    appends_after_fence: int = 0
    """What it sent after it was told that another owns the job."""
    is_fenced: bool = False
    how: Literal["crashed", "lost", "left", "finished"] | None = None
    """left: it could not claim, or gave the store up; finished: it saw the job end, stop or handed back."""
    state: State | None = None
    """The last state its runner had, where it finished."""


@dataclass(slots=True)
class Notes:
    calls: list[Call] = field(default_factory=list)
    undone: list[Call] = field(default_factory=list)
    """Calls of compensations."""
    asked: list[Asked] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    acknowledged: list[list[str]] = field(default_factory=list)
    """Event ids of each append whose sender was told that it is stored."""
    lives: list[Life] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    """Ids of the events that people appended."""
    committed: list[Committed] = field(default_factory=list)
    forked: list[Forked] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    """What nobody should ever see: exceptions of the engine itself."""
    covered: Counter[str] = field(default_factory=Counter)
