"""What a projection is: a pure function of each job, kept as a document, and totals over the jobs of a group.

A document is replaced whole and a total follows from what replaced what, so that nothing is counted twice however often
a job is looked at, and no order across jobs matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import orjson

from steplog.eventstore.events import Event
from steplog.eventstore.projected import StepRow
from steplog.projections.state import State

Tally = dict[str, Any]
"""Numbers by name, and tallies by name."""

GROUPS_BEGIN = "="
"""What the key of a group begins with: no job's id does."""


class Job(Protocol):
    """A job as a projection is shown it."""

    @property
    def known(self) -> Any:
        """What the projection keeps of the job, as of an earlier version; None where that is nothing."""
        ...

    def events(self) -> Iterable[Event]:
        """What came since then."""
        ...

    def state(self) -> State:
        """The job as it is now."""
        ...


class Projection(Protocol):
    """Something derived from the log, job by job. Whatever it raises puts that job aside, for this projection alone."""

    @property
    def name(self) -> str:
        """What its checkpoint and its documents are kept under."""
        ...

    @property
    def revision(self) -> int:
        """Raised when the same job comes to something else: the projection is then built anew."""
        ...

    @property
    def table(self) -> str | None:
        """Where its rows belong, None for the store's own table."""
        ...

    def document(self, job: Job) -> Any:
        """What is kept of the job, as plain JSON."""
        ...

    def tallies(self, document: Any) -> Mapping[str, Tally]:
        """What the job adds to the totals, by the keys of groups."""
        ...

    def rows(self, document: Any) -> list[StepRow]:
        """The job's rows in the table."""
        ...


def group_key(*names: str) -> str:
    """The key of the group with these names."""
    return GROUPS_BEGIN + orjson.dumps(names).decode()


def is_group(key: str) -> bool:
    """Whether it is the key of a group, and not a job's id."""
    return key.startswith(GROUPS_BEGIN)


def names_of(group: str) -> list[str]:
    """The names of the group with that key."""
    return list(orjson.loads(group[len(GROUPS_BEGIN) :]))


def added(total: Tally, tally: Tally, sign: int = 1) -> Tally:
    """The total with the tally put in, or taken out with -1. What comes to nothing is left out."""
    result = dict(total)
    for name, value in tally.items():
        if isinstance(value, dict):
            inner = added(result.get(name, {}), value, sign)
        else:
            inner = result.get(name, 0) + sign * value
        if inner:
            result[name] = inner
        else:
            result.pop(name, None)
    return result
