"""The event catalogue: every fact the log can hold, one frozen model each, told apart by `type`.

The models are used when writing. Reading works on plain dicts after the check in `structure.py`, which is derived
from these models. A field that is None is left out of the log.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Json = Any
"""A plain JSON value: None, bool, int, float, str, list or dict of these."""

JsonObject = dict[str, Any]
Version = Annotated[int, Field(ge=1)]
Ordinal = Annotated[int, Field(ge=1)]
By = str
"""Who did it: `engine`, or an operator's name."""


class NewEvent(NamedTuple):
    """An event about to be written: sealed into its job's chain, its data already canonical bytes."""

    job_id: str
    version: int
    event_id: str
    type: str
    schema_version: int
    recorded_at: str
    payload: bytes
    hash: str


class Event(NamedTuple):
    """An event as recorded and read back."""

    job_id: str
    version: int
    event_id: str
    type: str
    schema_version: int
    recorded_at: str
    data: JsonObject
    hash: str


class EventData(BaseModel):
    """What an event says beyond its envelope."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_version: ClassVar[int] = 1

    @classmethod
    def type(cls) -> str:
        """The event's name in the log."""
        return cls.__name__

    def as_data(self) -> JsonObject:
        """The data as the log keeps them: a plain dict without the fields that are None."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


# --- the job ---------------------------------------------------------------------------------------------------------


class JobCreated(EventData):
    """A job was submitted: its input and the plan it will run on."""

    workflow: str
    workflow_version: str
    plan: JsonObject
    input: Json = None
    context: JsonObject = {}
    key: str | None = None
    tags: dict[str, str] = {}
    priority: int = 0
    run_at: str | None = None
    batch_id: str | None = None
    traceparent: str | None = None
    mode: Literal["engine", "recorded"] = "engine"


class JobForked(EventData):
    """A job was begun from another one's past; `inherited` SubStepInherited events follow before it can be claimed."""

    workflow: str
    workflow_version: str
    plan: JsonObject
    input: Json = None
    context: JsonObject = {}
    from_job_id: str
    from_version: Version
    parent_hash: str
    inherited: Annotated[int, Field(ge=0)]
    key: str | None = None
    by: By
    reason: str | None = None


class SubStepInherited(EventData):
    """A settled sub-step copied from the job that this one was forked from; a fan-out in chunks of one group."""

    phase: str
    sub_step: str
    generation: Ordinal
    attempts: Annotated[int, Field(ge=0)]
    status: Literal["completed", "failed", "skipped", "in_progress"]
    items: list[JsonObject] | None = None
    result: Json = None
    error: JsonObject | None = None
    reason: str | None = None
    idempotency_key: str | None = None
    context_written: JsonObject = {}
    started_at: str | None = None
    completed_at: str | None = None
    from_event: Version
    group: str | None = None


class JobClaimed(EventData):
    """A worker became the job's owner."""

    worker_id: str
    epoch: Ordinal
    claim_id: str
    reason: Literal["first", "takeover", "wake", "resume"]


class JobReleased(EventData):
    """The job's owner gave it back."""

    reason: str
    wake_at: str | None = None


class JobPauseRequested(EventData):
    """Somebody asked for the job to pause once what is running has settled."""

    by: By
    reason: str | None = None


class JobPaused(EventData):
    """The job stopped on request; nothing is running."""

    by: By
    reason: str | None = None


class JobResumed(EventData):
    """A stopped job goes on; failed sub-steps that stopped it get a new budget of attempts."""

    by: By
    reason: str | None = None


class JobCancelRequested(EventData):
    """Somebody asked for the job to end before its end."""

    by: By
    reason: str | None = None


class JobCancelled(EventData):
    """The job ended on request."""

    by: By
    reason: str | None = None


class JobReopened(EventData):
    """An ended or failed job was opened again by a reset."""

    by: By
    reason: str | None = None


class SecretsErased(EventData):
    """The job's data key was destroyed with this event: what it has sealed can be read by nobody any more."""

    by: By
    reason: str


class JobParked(EventData):
    """The job stopped and waits for a person."""

    reason: Literal[
        "held interruption", "crash loop", "stuck handler", "context conflict", "log regressed", "compensation failed"
    ]
    detail: str | None = None
    phase: str | None = None
    sub_step: str | None = None
    lost_version: Version | None = None
    lost_hash: str | None = None


class PlanAdopted(EventData):
    """The job goes on with another plan."""

    plan: JsonObject
    workflow_version: str
    differences: list[str]
    by: By


class JobCompleted(EventData):
    """Every phase is completed; warnings name the failures that were tolerated."""

    warnings: list[str] = []


class JobFailed(EventData):
    """A phase failed and the job waits for a person."""

    error: JsonObject
    phase: str
    sub_step: str


# --- the phase -------------------------------------------------------------------------------------------------------


class PhaseStarted(EventData):
    """The phase's sub-steps may start."""

    phase: str


class PhaseCompleted(EventData):
    """Every sub-step of the phase has settled and none of its failures counts."""

    phase: str


class PhaseFailed(EventData):
    """Every sub-step of the phase has settled and at least one failure counts."""

    phase: str
    failed: list[str]


# --- the sub-step ----------------------------------------------------------------------------------------------------


class SubStepData(EventData):
    """What every event of a sub-step says."""

    phase: str
    sub_step: str
    item: str | None = None
    generation: Ordinal = 1


class AttemptData(SubStepData):
    """What every event of an attempt says."""

    attempt: Ordinal


class SubStepStarted(AttemptData):
    """An attempt may run: durable before its handler is called."""

    idempotency_key: str
    needs: list[str] = []
    when: bool | None = None


class SubStepWaiting(SubStepData):
    """The sub-step waits for something other than its edges; it holds no worker."""

    kind: Literal["sleep", "signal", "retry", "limit"]
    until: str | None = None
    signal: str | None = None


class SubStepProgressed(AttemptData):
    """How far an attempt has come."""

    done: int | float
    total: int | float | None = None
    note: str | None = None


class SubStepLogged(AttemptData):
    """Lines that an attempt wrote."""

    lines: list[str]


class SubStepCheckpointed(AttemptData):
    """Where the next attempt of this generation may go on, and the context draft it goes on with."""

    cursor: Json = None
    draft: JsonObject = {}


class SubStepCompleted(AttemptData):
    """An attempt did what it was for."""

    result: Json = None
    seconds: float
    by: By = "engine"
    reason: str | None = None
    context_refused: JsonObject | None = None


class SubStepFailed(AttemptData):
    """An attempt failed. The error is `{type, message, traceback, retryable}`."""

    error: JsonObject
    seconds: float
    by: By = "engine"


class SubStepRetryScheduled(AttemptData):
    """`attempt` will start at `retry_at`."""

    retry_at: str
    by: By = "engine"
    reason: str | None = None


class SubStepSkipped(SubStepData):
    """The sub-step will not run, and why."""

    attempt: Ordinal | None = None
    cause: Literal["condition", "raised", "unmet need", "operator"]
    reason: str
    by: By = "engine"


class SubStepInterrupted(AttemptData):
    """An attempt's outcome is not known: its effect may have happened. It runs again at `retry_at`, or at once."""

    cause: Literal["owner died", "handed back", "commit unknown", "cancelled"]
    worker_id: str
    retry_at: str | None = None


class SubStepReset(EventData):
    """Sub-steps went back to pending together, and the context they wrote with them."""

    sub_steps: list[str]
    items: list[str] | None = None
    set: JsonObject = {}
    unset: list[str] = []
    same_key: bool = False
    by: By
    reason: str | None = None
    group: str | None = None


class LateOutcome(AttemptData):
    """An outcome that came after its attempt was settled otherwise; its effect may have happened."""

    outcome: Literal["completed", "failed", "skipped"]
    result: Json = None
    error: JsonObject | None = None
    reason: str | None = None
    seconds: float | None = None


class SubStepExpanded(SubStepData):
    """The items of a fan-out, in chunks of one group."""

    items: list[JsonObject]
    group: str
    last: bool
    when: bool | None = None


# --- context, input, signals -----------------------------------------------------------------------------------------


class ContextChanged(EventData):
    """Fields of the job's context got new values."""

    set: JsonObject = {}
    unset: list[str] = []
    phase: str | None = None
    sub_step: str | None = None
    item: str | None = None
    by: By = "engine"
    reason: str | None = None


class InputChanged(EventData):
    """A stopped job's input was edited."""

    input: Json = None
    by: By
    reason: str | None = None


class SignalReceived(EventData):
    """Somebody sent the job a signal."""

    name: str
    payload: Json = None
    signal_id: str
    by: By | None = None


# --- compensation ----------------------------------------------------------------------------------------------------


class CompensationStarted(AttemptData):
    """A compensation of a completed sub-step may run."""

    idempotency_key: str


class CompensationCompleted(AttemptData):
    """A completed sub-step's effect was undone."""

    seconds: float


class CompensationFailed(AttemptData):
    """A compensation failed; it is tried again at `retry_at`, or waits for a person."""

    error: JsonObject
    seconds: float
    retry_at: str | None = None


class CompensationInterrupted(AttemptData):
    """A compensation's outcome is not known: it runs again."""

    cause: Literal["owner died", "handed back", "commit unknown"]
    worker_id: str


def _leaves(root: type[EventData]) -> list[type[EventData]]:
    found = root.__subclasses__()
    return [leaf for kind in found for leaf in (_leaves(kind) or [kind])]


CATALOGUE: dict[str, type[EventData]] = {kind.type(): kind for kind in _leaves(EventData)}
"""Every event type by its name in the log."""
