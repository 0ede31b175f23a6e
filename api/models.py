"""What the API takes and answers, as OpenAPI tells it. Answers are made from folds; these types describe them.

Tests hold every answer against its type, so no request pays for checking what we wrote ourselves.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from steplog.projections.state import JobStatus, PhaseStatus, SubStepStatus
from steplog.projections.statistics import SubStepStatistics

Json = Any


class Progress(BaseModel):
    done: int
    total: int


class Failure(BaseModel):
    """What a handler raised."""

    type: str
    message: str
    traceback: str | None = None
    retryable: bool | None = None


class SubStep(BaseModel):
    """A sub-step as of a version; single attempts are in the timeline."""

    status: SubStepStatus
    attempts: int
    generation: int
    started_at: str | None
    completed_at: str | None
    seconds: float | None
    result: Json
    error: dict[str, Any] | None
    reason: str | None
    retry_at: str | None
    wait: dict[str, Any] | None
    idempotency_key: str | None
    progress: dict[str, Any] | None
    cursor: Json
    items: dict[str, int] | None = None
    """Of a fan-out: how many of its items there are, and are in each status."""
    compensation: dict[str, Any] | None = None
    """How what it did was undone, where it was."""


class Phase(BaseModel):
    status: PhaseStatus
    description: str | None
    started_at: str | None
    completed_at: str | None
    sub_steps: dict[str, SubStep]


class Snapshot(BaseModel):
    """A job as of a version."""

    job_id: str
    workflow: str
    workflow_version: str
    status: JobStatus
    reason: str | None
    error: dict[str, Any] | None
    warnings: list[str]
    version: int
    created_at: str
    updated_at: str
    ended_at: str | None
    key: str | None
    tags: dict[str, str]
    input: Json
    current_phase: str | None
    progress: Progress
    context: dict[str, Any]
    phases: dict[str, Phase]
    allowed_actions: list[str] | None = None
    """What may be done with the job now; not said of the past."""


class JobRow(BaseModel):
    """A job as lists show it."""

    job_id: str
    version: int
    workflow: str
    status: JobStatus
    created_at: str
    updated_at: str
    mode: Literal["engine", "recorded"]
    phase: str | None
    last_error: str | None
    failed_sub_step: str | None
    wake_at: str | None
    ended_at: str | None
    key: str | None
    tags: dict[str, str]
    priority: int
    batch_id: str | None
    progress: Progress
    worker_id: str | None
    epoch: int


class JobPage(BaseModel):
    """Jobs, newest first. `next_cursor` names the next page, and is null on the last."""

    items: list[JobRow]
    next_cursor: str | None


class EventDocument(BaseModel):
    job_id: str
    version: int
    event_id: str
    type: str
    schema_version: int
    recorded_at: str
    data: dict[str, Any]
    hash: str


class EventPage(BaseModel):
    """Events in order. `next_after` goes on from the last one, and is null where the job has no more."""

    items: list[EventDocument]
    next_after: int | None


class ItemDocument(BaseModel):
    """An item of a fan-out, and what it came to."""

    item: str
    input: Json
    status: SubStepStatus
    attempts: int
    generation: int
    seconds: float | None
    result: Json
    error: dict[str, Any] | None
    reason: str | None
    retry_at: str | None
    started_version: int | None


class ItemPage(BaseModel):
    """Items in their order, the group in numbers. `next_cursor` is null where there are no more."""

    items: list[ItemDocument]
    next_cursor: str | None
    counts: dict[str, int]


class ResumePoint(BaseModel):
    """What would run next, and why."""

    job_id: str
    version: int
    status: JobStatus
    phase: str | None
    context: dict[str, Any]
    run: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    done: list[str]
    skipped: list[str]
    failed: list[str]


class PatchOperation(BaseModel):
    op: Literal["add", "remove", "replace"]
    path: str
    value: Json = None


class WorkflowRow(BaseModel):
    name: str
    version: str
    phases: list[dict[str, Any]]
    submittable: bool
    """Whether this server has the code that checks an input."""


class WorkflowList(BaseModel):
    items: list[WorkflowRow]


class WorkflowDocument(WorkflowRow):
    """A workflow's shape: phases, sub-steps and their edges, and the JSON Schemas of its input and context."""

    input_schema: dict[str, Any]
    context_schema: dict[str, Any]


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    status: Literal["ready"]
    checks: dict[str, str]


class WorkerRow(BaseModel):
    worker_id: str
    host: str
    pid: int
    state: Literal["alive", "dead", "stopped"]
    started_at: str
    expires_at: str | None


class WorkerList(BaseModel):
    items: list[WorkerRow]


class Stats(BaseModel):
    """How many jobs there are, by status and by workflow and status; how many clients listen to this server."""

    jobs: dict[str, int]
    workflows: dict[str, dict[str, int]]
    oldest_ready_at: str | None
    """Since when the job has been due that waited longest for a worker."""
    listeners: int
    sub_steps: list[SubStepStatistics]


class ProblemDocument(BaseModel):
    """RFC 9457; what else it says depends on its type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:steplog:problem:job-not-found"])
    title: str
    status: int
    detail: str
    hint: str | None = None


# --- what is sent ----------------------------------------------------------------------------------------------------


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Because(Sent):
    """Why something is done."""

    reason: Annotated[str | None, Field(max_length=1000, examples=["the payment service is back"])] = None


class Resume(Because):
    accept: bool = False
    """Where sub-steps disagreed about the context: leave it as it is."""


class Retry(Because):
    same_key: bool = False
    """Keep the idempotency key also where input or context were edited since."""


class Complete(Because):
    result: Json = None


class Signal(Because):
    payload: Json = None


class SetContext(Because):
    set: dict[str, Json] = {}
    unset: list[str] = []


class EditInput(Because):
    input: Json


class Fork(Because):
    at: Annotated[int | None, Field(ge=1)] = None
    """The version that the new job goes on from; now unless it is given."""
    set: dict[str, Json] = {}
    unset: list[str] = []
    input: Json = None
    """Another input; null keeps the parent's."""


class Submit(Sent):
    """A job to be run by a worker, or one that another engine records."""

    input: Json = None
    key: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    """At most one job of the workflow has it."""
    tags: Annotated[dict[str, str], Field(max_length=32)] = {}
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    run_at: AwareDatetime | None = None
    mode: Literal["engine", "recorded"] = "engine"
    plan: dict[str, list[str]] | None = None
    """Of a recorded job: the names of its sub-steps by phase."""


class ClaimDocument(BaseModel):
    """What fences one ownership; it is sent with every append."""

    worker_id: str
    epoch: int
    claim_id: str


class Submitted(BaseModel):
    job_id: str
    version: int
    status: str
    claim: ClaimDocument | None = None
    """Of a recorded job: what appends to it are sent with."""
    snapshot: Snapshot | None = None
    """Of a recorded job: what is known of it, for a recorder that was started again."""


class SentEvent(Sent):
    event_id: str
    """A UUID of the client's: the same one again is the same event."""
    type: str
    data: dict[str, Json] = {}


class SentEvents(Sent):
    """Events of a recorded job, behind the version that the client knows and under the claim it was given."""

    claim: ClaimDocument
    expected: int = Field(ge=0, lt=1 << 63)
    events: list[SentEvent] = Field(min_length=1, max_length=500)


class Appended(BaseModel):
    """What a request came to."""

    job_id: str
    version: int
    status: str
    events: list[str]
    """Types of the events that it appended, or would."""
    repeated: bool = False
    """Whether the same request had been made before."""
    dry_run: bool = False
    would: list[dict[str, Any]] | None = None
    """In a dry run: the events with their data."""
