"""What a store keeps of projections: documents by key, how far each projection has come, jobs it cannot follow.

A projection is written with compare-and-set on its checkpoint, so of two that keep it at once one finds that it is late
and has written nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Checkpoint = dict[str, Any]
"""How far a projection has come, as plain JSON; what is in it is the runner's business."""


class Document(NamedTuple):
    """What a projection keeps under a key: of a job by its id, up to that version of it; of a group at version 0."""

    key: str
    version: int
    data: Any


class Move(NamedTuple):
    """A checkpoint that goes on; None is one that is not there."""

    name: str
    before: Checkpoint | None
    after: Checkpoint | None


class StepRow(NamedTuple):
    """A row of the table that a page of the user's own reads: progress in the shape of `report_table`."""

    job_id: str
    step_number: int
    status: str
    sub_step_progress: str
    """JSON."""
    error_message: str | None
    updated_at: str


class Quarantined(NamedTuple):
    """A job that a projection cannot follow beyond a version, and why."""

    projection: str
    job_id: str
    version: int
    error: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a projection's next stretch comes to: all of it is stored, or nothing."""

    name: str
    moves: Sequence[Move]
    generation: int = 1
    documents: Sequence[Document] = ()
    table: str | None = None
    """Where the rows belong; None is the store's own table."""
    rows: Sequence[StepRow] = ()
    quarantined: Sequence[Quarantined] = field(default=())


class JobVersion(NamedTuple):
    """A job, its log's length, and how much of it a projection has; None where it has nothing of it."""

    job_id: str
    version: int
    known: int | None


class Projected(Protocol):
    """The projections of one store."""

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Every checkpoint by its name."""
        ...

    def documents(self, name: str, generation: int, keys: Sequence[str]) -> dict[str, Document]:
        """Those of the keys that the projection has documents of."""
        ...

    def page(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[Document]:
        """Documents with keys behind `after`, in their order."""
        ...

    def jobs(self, name: str, generation: int, after: str = "", limit: int = 500) -> list[JobVersion]:
        """Every job with an id behind `after`, in their order, and how much of it the projection has."""
        ...

    def store(self, change: Change) -> bool:
        """Store the change, unless one of its checkpoints is not what it should be: then False, and nothing is stored.

        Raises StoreError where a row is refused by its table.
        """
        ...

    def remove(self, name: str, generation: int, limit: int = 1000) -> int:
        """Remove up to so many documents of a generation; how many that were."""
        ...

    def quarantined(self) -> list[Quarantined]:
        """Every job that a projection cannot follow."""
        ...

    def release(self, name: str) -> None:
        """Forget which jobs the projection cannot follow."""
        ...

    def step_rows(self, table: str | None = None, after: tuple[str, int] = ("", 0), limit: int = 500) -> list[StepRow]:
        """Rows of the table behind that job and step, in their order."""
        ...
