"""What a declaration can say about failing: retries, skips, errors that end it; and durations as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf

from steplog.engine.errors import DefinitionError
from steplog.projections.plan import RetryPlan

Duration = str | int | float
"""Seconds, or text such as `500ms`, `30s`, `5m`, `2h`, `1d`."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Skip(Exception):
    """Raised by a handler, or returned by `when=`: the sub-step is skipped for the reason given."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Fatal(Exception):
    """Raised by a handler: the sub-step failed and is not tried again."""


class Cancelled(Exception):
    """Raised by a handler that was asked to stop and does so half-way: see `Step.raise_if_cancelled`."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how far apart a failing sub-step is tried.

    `attempts` counts the first try too. The n-th wait is `wait * factor**(n-1)`, at most `max_wait`, made longer by up
    to `jitter` of itself. Only exceptions of the types in `on` are tried again, and none of `never`.
    """

    attempts: int = 3
    wait: Duration = "1s"
    factor: float = 2.0
    max_wait: Duration = "5m"
    jitter: float = 0.1
    on: tuple[type[Exception], ...] = (Exception,)
    never: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise DefinitionError(f"a sub-step is tried at least once (attempts={self.attempts})")
        if not (1 <= self.factor < inf and 0 <= self.jitter < inf):
            raise DefinitionError(f"waits cannot shrink, or be endless (factor={self.factor}, jitter={self.jitter})")
        for kinds in (self.on, self.never):
            if not isinstance(kinds, tuple) or not all(isinstance(kind, type) for kind in kinds):
                raise DefinitionError(f"on= and never= take tuples of exception types, not {kinds!r}")
        self.plan()

    def plan(self) -> RetryPlan:
        """The policy as the plan records it."""
        return RetryPlan(
            attempts=self.attempts,
            wait_s=seconds_of(self.wait),
            factor=self.factor,
            wait_s_max=seconds_of(self.max_wait),
            jitter=self.jitter,
        )

    def allows(self, error: BaseException) -> bool:
        """Whether that error may be tried again."""
        return isinstance(error, self.on) and not isinstance(error, (Fatal, *self.never))


def retry_of(given: Retry | int | None) -> Retry:
    """The policy of a `retry=` argument: a number is attempts in all, none is one."""
    if isinstance(given, Retry):
        return given
    return Retry(attempts=1 if given is None else given)


def seconds_of(duration: Duration) -> float:
    """A duration in seconds. Raises DefinitionError where it is none."""
    if isinstance(duration, str):
        match = _DURATION.fullmatch(duration.strip())
        if match is None:
            raise DefinitionError(f"{duration!r} is no duration: write seconds, or 500ms, 30s, 5m, 2h, 1d")
        return float(match[1]) * _UNITS[match[2]]
    if not 0 <= duration < inf:
        raise DefinitionError(f"a duration is a number of seconds that is not negative ({duration})")
    return float(duration)
