"""A job's head, who owns it, and how heads are looked for: to list them, or to find work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from steplog.eventstore.chain import Position


class HeadColumns(NamedTuple):
    """What lists filter on: a pure function of the folded state, written by every append together with the version."""

    workflow: str
    status: str
    created_at: str
    updated_at: str
    mode: str
    phase: str | None
    last_error: str | None
    failed_sub_step: str | None
    wake_at: str | None
    """When a worker should look at the job; None where nothing is due: it is ended, or waits for a person."""
    ended_at: str | None
    done: int
    total: int
    key: str | None
    tags: dict[str, str]
    priority: int
    batch_id: str | None


HEAD_COLUMNS = 7 + len(HeadColumns._fields)
"""How many columns a job's row has."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The fence of one ownership: both epoch and claim id are compared on every append of the owner."""

    worker_id: str
    """Empty for a recorder: it is no worker, has no lease, and is fenced by the next claim alone."""
    epoch: int
    claim_id: str


@dataclass(frozen=True, slots=True)
class Head:
    """A job's row: where its log ends, what lists show, and who owns it."""

    job_id: str
    version: int
    hash: str
    recorded_at: str
    columns: HeadColumns
    epoch: int = 0
    claim_id: str | None = None
    worker_id: str | None = None

    @property
    def position(self) -> Position:
        return Position(self.version, self.hash, self.recorded_at)


@dataclass(frozen=True, slots=True)
class WorkQuery:
    """What a worker looks for: jobs that it may claim."""

    workflows: Sequence[str]
    limit: int = 50
    """At most so many jobs of each workflow."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """By job, the version at which this worker has refused it: until somebody changes it, it is no work."""
    used_up: Sequence[tuple[str, Mapping[str, str]]] = ()
    """Workflow and tags of jobs that a limit lets nobody claim for now; without tags all of the workflow."""

    def is_held_up(self, workflow: str, tags: Mapping[str, str]) -> bool:
        """Whether a limit that is used up counts a job of that workflow with those tags."""
        return any(name == workflow and wanted.items() <= tags.items() for name, wanted in self.used_up)


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker that looked for work found."""

    now: str
    due: list[Head]
    """Jobs nobody owns whose time has come: by workflow, within one by priority and then by time."""
    left_behind: list[Head]
    """Jobs whose owner is dead or has ended, as far as looking tells: whoever claims one makes sure."""
    next_at: str | None
    """When time alone makes the next job due."""


@dataclass(frozen=True, slots=True)
class BatchCount:
    """How far the jobs of one batch are."""

    batch_id: str
    created_at: str
    """When its first job was."""
    statuses: dict[str, int]
    """How many jobs have each status; those that none has are left out."""


@dataclass(frozen=True, slots=True)
class SlotWanted:
    """A slot that a claim takes of a limit of the fleet, or is not made."""

    limit: str
    """The limit's name, of the workflow or of one key in it."""
    slots: int
    period_s: float | None = None
    """How long a slot of a rate is used up; None for a concurrency limit, whose slot is held while the job is owned."""


@dataclass(frozen=True, slots=True)
class HeadQuery:
    """Which jobs a list shows, newest first."""

    workflow: str | None = None
    status: str | None = None
    phase: str | None = None
    key: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    since: str | None = None
    failed_sub_step: str | None = None
    batch_id: str | None = None
    before: str | None = None
    """Only jobs created before this one (a job id, itself left out): the page's cursor."""
    limit: int = 50


def counted(rows: Iterable[Sequence[Any]]) -> dict[str, dict[str, int]]:
    """Rows of workflow, status and a number of jobs, added up by workflow and status."""
    found: dict[str, dict[str, int]] = {}
    for workflow, status, count in rows:
        of_workflow = found.setdefault(workflow, {})
        of_workflow[status] = of_workflow.get(status, 0) + count
    return found
