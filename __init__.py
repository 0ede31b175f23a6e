"""steplog: an append-only log of every step a job takes, and the engine that survives a crash because of it."""

from steplog.engine.context import Context
from steplog.engine.errors import (
    AttemptOver,
    DefinitionError,
    InputRefused,
    Interrupted,
    NoResult,
    OwnershipLost,
    PlanMismatch,
)
from steplog.engine.handle import JobHandle
from steplog.engine.injection import result, use
from steplog.engine.policies import Fatal, Retry, Skip
from steplog.engine.settings import Settings
from steplog.engine.step import Job, NoInput, Step
from steplog.engine.worker import Worker
from steplog.engine.workflow import Workflow
from steplog.eventstore.connect import open_store
from steplog.eventstore.errors import PayloadRefused, SteplogError, StoreError

__all__ = [
    "AttemptOver",
    "Context",
    "DefinitionError",
    "Fatal",
    "InputRefused",
    "Interrupted",
    "Job",
    "JobHandle",
    "NoInput",
    "NoResult",
    "OwnershipLost",
    "PayloadRefused",
    "PlanMismatch",
    "Retry",
    "Settings",
    "Skip",
    "Step",
    "SteplogError",
    "StoreError",
    "Worker",
    "Workflow",
    "open_store",
    "result",
    "use",
]
