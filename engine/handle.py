"""A job as the program that ran it sees it: how it went, results by sub-step, the context."""

from __future__ import annotations

from typing import Any, Generic

from typing_extensions import TypeVar

from steplog.engine.context import Context, open_draft
from steplog.engine.definition import Definition
from steplog.engine.errors import NoResult
from steplog.engine.injection import Produces
from steplog.engine.values import load
from steplog.engine.vault import Vault
from steplog.projections.fan_out import results_of
from steplog.projections.readiness import sub_step_of
from steplog.projections.snapshot import snapshot
from steplog.projections.state import JobStatus, State

C = TypeVar("C", bound=Context, default=Context)
R = TypeVar("R")


class JobHandle(Generic[C]):
    """A job as of when its run ended; it does not follow later changes."""

    def __init__(self, state: State, definition: Definition[Any, C], vault: Vault) -> None:
        self._state = state
        self._definition = definition
        self._vault = vault

    @property
    def job_id(self) -> str:
        return self._state["job_id"]

    @property
    def status(self) -> JobStatus:
        """`completed`, or why it is not: `failed` and `parked` wait for a person."""
        return self._state["status"]

    @property
    def version(self) -> int:
        """The job's latest event number."""
        return self._state["version"]

    @property
    def warnings(self) -> list[str]:
        """Failures that were tolerated."""
        return self._state["warnings"]

    @property
    def context(self) -> C:
        """The job's context, typed. Raises SecretsErased where its secrets were."""
        return open_draft(self._definition.context_type, self._state["context"], vault=self._vault)

    @property
    def snapshot(self) -> dict[str, Any]:
        """The phase/sub-step JSON that the CLI and the status API show."""
        return snapshot(self._state)

    def result(self, sub_step: Produces[R]) -> R:
        """What the sub-step returned. Raises NoResult where it did not complete, with why; SecretsErased."""
        recorded = sub_step_of(self._state, sub_step.key)
        if recorded["status"] != "completed":
            error = recorded["error"] or {}
            why = recorded["reason"] or f"{error.get('type', 'it')}: {error.get('message', recorded['status'])}"
            raise NoResult(self.job_id, sub_step.key, f"{recorded['status']}: {why}")
        value: R = load(results_of(recorded), self._definition.sub_steps[sub_step.key].returns, self._vault)
        return value

    def __repr__(self) -> str:
        return f"<job {self.job_id} of {self._state['workflow']}: {self.status} at version {self.version}>"
