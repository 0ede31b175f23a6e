"""What the invariants are said in: what they yield, how much is allowed for, and the context as code sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulation.reading import UNWRITTEN, Reading
from simulation.world import POLL_S, SETTINGS

from steplog.eventstore.codec import encode
from steplog.projections.state import State

Broken = Iterator[str]
"""What is broken, as sentences; one is enough."""

SLACK_S = 0.01
SUSPECT_AFTER = 2
"""Deaths of its owner after which a sub-step may be their cause."""
STOPS_WITHIN_S = SETTINGS.heartbeat_s + 6.0
"""A former owner hears of it by its heartbeat; an append in flight and a handler's clean-up may take a while more."""
STOPS = frozenset({"JobCompleted", "JobFailed", "JobParked", "JobPaused", "JobCancelled"})
REAL = frozenset({"return", "raise", "fatal", "skip", "unrecordable", "own cancel"})
"""Outcomes of handlers that ended by themselves."""
ERRORS = {
    "raise": ("RuntimeError", True),
    "fatal": ("Fatal", False),
    "unrecordable": ("PayloadRefused", False),
    "own cancel": ("CancelledError", False),
    "refused": ("StoreUnavailable", True),
    "over": ("AttemptOver", False),
}
"""By outcome that is a failure, the type of its error and whether that is tried again."""


def looked_for_s(told: Reading) -> float:
    """How long it may take until somebody looks for what is due: at once, where its owner kept the job."""
    return 0.1 + (POLL_S if told.story.releases else 0.0)


def filled(told: Reading, place: int) -> dict[str, Any]:
    """The context before that place as code sees it."""
    return {**UNWRITTEN, **told.before[place].context}


def differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The fields that have another value now."""
    return {field: value for field, value in after.items() if value != before.get(field)}


def canonical(state: State) -> bytes:
    """The state as bytes, to be compared."""
    return encode(dict(state), bytes_max=1 << 40)
