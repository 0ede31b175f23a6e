"""steplog: an append-only log of every step a job takes, and the engine that survives a crash because of it.

Each name is imported when it is first used, so that what needs none of them (`steplog --help`) starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steplog.api.app import asgi
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
    from steplog.engine.policies import Cancelled, Fatal, Retry, Skip
    from steplog.engine.recorder import Recorder
    from steplog.engine.serving import arun_worker, run_worker
    from steplog.engine.settings import Settings
    from steplog.engine.step import Job, NoInput, Step
    from steplog.engine.transaction import Transaction
    from steplog.engine.worker import Worker
    from steplog.engine.workflow import Workflow
    from steplog.eventstore.connect import open_store
    from steplog.eventstore.errors import PayloadRefused, StatementFailed, SteplogError, StoreError

__all__ = [
    "AttemptOver",
    "Cancelled",
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
    "Recorder",
    "Retry",
    "Settings",
    "Skip",
    "StatementFailed",
    "Step",
    "SteplogError",
    "StoreError",
    "Transaction",
    "Worker",
    "Workflow",
    "arun_worker",
    "asgi",
    "open_store",
    "result",
    "run_worker",
    "use",
]

_ERRORS = "steplog.engine.errors"
_HOMES = {
    "asgi": "steplog.api.app",
    "Context": "steplog.engine.context",
    **dict.fromkeys(("AttemptOver", "DefinitionError", "InputRefused", "Interrupted"), _ERRORS),
    **dict.fromkeys(("NoResult", "OwnershipLost", "PlanMismatch"), _ERRORS),
    "JobHandle": "steplog.engine.handle",
    **dict.fromkeys(("result", "use"), "steplog.engine.injection"),
    **dict.fromkeys(("Cancelled", "Fatal", "Retry", "Skip"), "steplog.engine.policies"),
    "Recorder": "steplog.engine.recorder",
    **dict.fromkeys(("arun_worker", "run_worker"), "steplog.engine.serving"),
    "Settings": "steplog.engine.settings",
    **dict.fromkeys(("Job", "NoInput", "Step"), "steplog.engine.step"),
    "Transaction": "steplog.engine.transaction",
    "Worker": "steplog.engine.worker",
    "Workflow": "steplog.engine.workflow",
    "open_store": "steplog.eventstore.connect",
    **dict.fromkeys(("PayloadRefused", "StatementFailed", "SteplogError", "StoreError"), "steplog.eventstore.errors"),
}

if not TYPE_CHECKING:  # the checkers read the imports above, and would believe any name of a module that has this

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
