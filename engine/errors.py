"""What declaring, submitting and running a workflow can refuse, as types."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import ClassVar

from steplog.eventstore.errors import SteplogError, WrongState


class DefinitionError(SteplogError, TypeError):
    """A workflow's declaration cannot mean anything; the message says where and why."""


class InputRefused(SteplogError, ValueError):
    """The input does not fit the workflow's schema."""

    def __init__(self, workflow: str, problems: list[str]) -> None:
        super().__init__(f"input of {workflow} refused: {'; '.join(problems)}")
        self.workflow = workflow
        self.problems = problems


class ValueRefused(SteplogError, ValueError):
    """A value given by hand does not fit the code's types, or what the job has."""

    def __init__(self, what: str, problems: list[str]) -> None:
        super().__init__(f"{what} refused: {'; '.join(problems)}")
        self.what = what
        self.problems = problems


class ContextReadOnly(SteplogError, TypeError):
    """A compensation changed the context: it undoes what its sub-step did elsewhere, and writes nothing to be read."""


class ItemsRefused(SteplogError, ValueError):
    """What a fan-out is to run over is no list of items with keys of their own."""


class ActionRefused(WrongState):
    """A person may not do that with the job, or with one of its sub-steps, as it is now."""

    def __init__(
        self,
        job_id: str,
        status: str,
        action: str,
        allowed: list[str],
        why: str,
        *,
        sub_step: str | None = None,
        blocked_by: Sequence[str] = (),
    ) -> None:
        what = f"sub-step {sub_step} of job {job_id}" if sub_step else f"job {job_id}"
        options = f"allowed now: {', '.join(allowed)}" if allowed else "nothing is allowed now"
        SteplogError.__init__(self, f"{what} is {status}: cannot {action}: {why}; {options}")
        self.job_id = job_id
        self.status = status
        self.wanted = self.action = action
        self.allowed = self.allowed_actions = allowed
        self.why = why
        self.sub_step = sub_step
        self.blocked_by = list(blocked_by)
        """The sub-steps that are in the way."""


class NoFanOut(SteplogError):
    """The sub-step has no items: it is no fan-out, or they have not been listed yet."""

    def __init__(self, job_id: str, sub_step: str, *, listed: bool) -> None:
        why = "its items have not been listed yet" if listed else "it is no fan-out"
        super().__init__(f"sub-step {sub_step} of job {job_id} has no items: {why}")
        self.job_id = job_id
        self.sub_step = sub_step


class VersionChanged(SteplogError):
    """The job has moved on from the version that the request was made for."""

    def __init__(self, job_id: str, expected: int, version: int) -> None:
        super().__init__(f"wrong expected version {expected} for job {job_id} (is {version})")
        self.job_id = job_id
        self.expected = expected
        self.version = version


class SubStepNotFound(SteplogError):
    """The job has no sub-step of that name."""

    def __init__(self, job_id: str, sub_step: str, known: list[str], more: int = 0) -> None:
        others = f" and {more} more" if more else ""
        super().__init__(f"job {job_id} has no sub-step {sub_step!r}; it has {', '.join(known)}{others}")
        self.job_id = job_id
        self.sub_step = sub_step
        self.known = known


class AmbiguousSubStep(SteplogError):
    """More than one phase of the job has a sub-step of that name."""

    def __init__(self, job_id: str, sub_step: str, candidates: list[str]) -> None:
        super().__init__(f"sub-step {sub_step!r} of job {job_id} is ambiguous: {', '.join(candidates)}")
        self.job_id = job_id
        self.sub_step = sub_step
        self.candidates = candidates


class RecordRefused(SteplogError, ValueError):
    """What another engine wants recorded does not fit the job; nothing was appended."""

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(f"not recorded into job {job_id}: {why}")
        self.job_id = job_id
        self.why = why


class BatchNotFound(SteplogError):
    """No job belongs to that batch."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"no batch {batch_id}")
        self.batch_id = batch_id


class PlanMismatch(SteplogError):
    """The job's recorded plan and the workflow in the code disagree."""

    def __init__(self, job_id: str, differences: list[str]) -> None:
        super().__init__(f"job {job_id} runs on another plan than the code has: {'; '.join(differences)}")
        self.job_id = job_id
        self.differences = differences


class PlanNotAdopted(PlanMismatch):
    """The job cannot go on with the plan that the code has: something that has happened would lose its meaning."""

    def __init__(self, job_id: str, differences: list[str], obstacles: list[str]) -> None:
        SteplogError.__init__(self, f"job {job_id} cannot go on with the code's plan: {'; '.join(obstacles)}")
        self.job_id = job_id
        self.differences = differences
        self.obstacles = obstacles


class DataMismatch(PlanMismatch):
    """The job recorded something that the types in the code refuse."""

    def __init__(self, job_id: str, differences: list[str]) -> None:
        SteplogError.__init__(self, f"job {job_id} has recorded what the code's types refuse: {'; '.join(differences)}")
        self.job_id = job_id
        self.differences = differences


class SecretsClosed(SteplogError):
    """The secrets of a job cannot be opened or sealed here."""

    next_step: ClassVar[str | None] = "configure the keys that sealed them: STEPLOG_KEYS, or `keys` in steplog.toml"

    def __init__(self, job_id: str | None, why: str) -> None:
        super().__init__(f"the secrets of job {job_id} are closed: {why}" if job_id else f"secrets are closed: {why}")
        self.job_id = job_id


class SecretsErased(SecretsClosed):
    """The secrets of the job were erased: nobody can read them any more."""

    next_step = "submit a new job with its input"

    def __init__(self, job_id: str, key_of: str, at: str | None = None) -> None:
        whose = "" if key_of == job_id else f" with those of job {key_of}, which it was forked from"
        SteplogError.__init__(self, f"the secrets of job {job_id} were erased{whose}{f' at {at}' if at else ''}")
        self.job_id = job_id
        self.key_of = key_of
        self.at = at


class WorkflowNotFound(SteplogError):
    """No module that was imported declares the workflow."""

    next_step: ClassVar[str | None] = (
        "name the module that declares it: `steplog --module MODULE resume JOB`, or STEPLOG_MODULES"
    )

    def __init__(self, workflow: str) -> None:
        super().__init__(f"no workflow {workflow!r} among the modules imported")
        self.workflow = workflow


class WorkflowNotDeclared(WorkflowNotFound):
    """The module does not declare that workflow."""

    next_step = None

    def __init__(self, module: str, name: str, declared: list[str]) -> None:
        known = f"it declares {', '.join(declared)}" if declared else "it declares none"
        SteplogError.__init__(self, f"module {module} has no workflow{f' {name!r}' if name else ''}: {known}")
        self.workflow = name


class AmbiguousWorkflow(SteplogError):
    """The module declares more than one workflow."""

    def __init__(self, module: str, names: list[str]) -> None:
        super().__init__(f"module {module} declares several workflows: {', '.join(names)}")
        self.module = module
        self.names = names


class DeclaredTwice(SteplogError):
    """More than one module declares a workflow of that name."""

    next_step = "name only one of them with --module"

    def __init__(self, workflow: str, modules: list[str]) -> None:
        super().__init__(f"workflow {workflow!r} is declared by {' and by '.join(modules)}")
        self.workflow = workflow
        self.modules = modules


class ModuleMissing(SteplogError):
    """There is no such module, installed or in the current folder."""

    next_step = "name it as an import would (`shop.orders`, not `shop/orders.py`), from the folder that holds it"

    def __init__(self, module: str) -> None:
        super().__init__(f"no module {module!r}")
        self.module = module


class ModuleFails(SteplogError):
    """The module raised while it was imported."""

    def __init__(self, module: str, error: BaseException) -> None:
        super().__init__(f"module {module} cannot be imported: {type(error).__name__}: {error}")
        self.module = module


class ReplayMismatch(SteplogError):
    """What the log folds to is not what the store shows of the job."""

    def __init__(self, job_id: str, differences: list[str]) -> None:
        super().__init__(f"job {job_id} does not fold to its stored head: {'; '.join(differences)}")
        self.job_id = job_id
        self.differences = differences


class NoResult(SteplogError):
    """The sub-step has no result."""

    def __init__(self, job_id: str, sub_step: str, why: str) -> None:
        super().__init__(f"sub-step {sub_step} of job {job_id} has no result: {why}")
        self.job_id = job_id
        self.sub_step = sub_step
        self.why = why


class RunCancelled(SteplogError):
    """Something in the event loop cancelled tasks that are not its own, and among them the run of a job."""

    next_step = "cancel only tasks that you created; the job itself can be resumed"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the run of job {job_id} was cancelled, and not by steplog: what ran of it was interrupted")
        self.job_id = job_id


class OwnershipLost(SteplogError):
    """Another worker owns the job now: this one stopped, and nothing it did since is in the log."""

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(f"job {job_id} was taken over: {why}")
        self.job_id = job_id


class LogRegressed(OwnershipLost):
    """The log is behind what was acknowledged to this worker: it went backwards."""

    def __init__(self, job_id: str, version: int) -> None:
        SteplogError.__init__(self, f"the log of job {job_id} is behind version {version}, which was acknowledged")
        self.job_id = job_id
        self.version = version


class AttemptOver(SteplogError):
    """The attempt was settled otherwise (timeout, interruption): what it says now is not recorded."""


class Interrupted(SteplogError):
    """The run was stopped; the job was handed back and can be resumed."""

    def __init__(self, job_id: str, signal_number: int) -> None:
        super().__init__(f"job {job_id} was handed back after signal {signal_number}; it can be resumed")
        self.job_id = job_id
        self.signal_number = signal_number


class HandlerTimeout(SteplogError, TimeoutError):
    """The attempt took longer than its timeout."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"took longer than {timeout_s:g} s")
        self.timeout_s = timeout_s


class HandlerProcessDied(SteplogError):
    """The handler's process ended before the handler did."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"the handler's process {_end_of(exit_code)} before the handler returned")
        self.exit_code = exit_code
        """A signal's number below zero; None where the process it was forked from ended too."""


def _end_of(exit_code: int | None) -> str:
    if exit_code is None:
        return "was killed with the one that it was forked from"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    known = {each.value: each.name for each in signal.Signals}
    name = known.get(-exit_code, f"signal {-exit_code}")
    return f"was killed by {name}{', as the kernel does where memory runs out,' if name == 'SIGKILL' else ''}"


class IntegrityFailed(SteplogError):
    """What is stored is not what it should be."""

    def __init__(self, findings: int) -> None:
        super().__init__(f"{findings} {'thing is' if findings == 1 else 'things are'} not what they should be")
        self.findings = findings


class AnchorRefused(SteplogError):
    """The anchor file cannot be trusted."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the anchor cannot be trusted: {why}")


class ImportRefused(SteplogError, ValueError):
    """The file is no export."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line} of the import: {why}")
        self.line = line


class AdoptionRefused(SteplogError, ValueError):
    """The row cannot become a job of that workflow."""

    def __init__(self, row: str, why: str) -> None:
        super().__init__(f"{row} was not adopted: {why}")
        self.row = row
        self.why = why


class ImportConflict(SteplogError):
    """The store has something else than what is imported; nothing of that job was imported."""

    def __init__(self, job_id: str, version: int, why: str) -> None:
        super().__init__(f"job {job_id} was not imported: at version {version} {why}")
        self.job_id = job_id
        self.version = version
