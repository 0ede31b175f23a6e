"""The way in: jobs under way in `registration_job_steps` become jobs here; their history says where they come from.

Such a job begins as a fork of a row: what had settled is inherited, what was in flight is pending again and named, for
its effect may have happened. Its key is the row's job, so that a row is taken once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from steplog.engine.context import fields_of
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import AdoptionRefused
from steplog.engine.fork import begun
from steplog.engine.given import given_input, given_result
from steplog.engine.jobs import as_of_holder
from steplog.engine.plan import plan_of
from steplog.engine.values import input_hash, problems_of
from steplog.engine.vault import Vault, new_vault
from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import Clock, SystemClock, instant
from steplog.eventstore.errors import KeyConflict
from steplog.eventstore.events import EventData, JobForked, SubStepInherited
from steplog.eventstore.store import NewJob, Store
from steplog.projections.head import head_of
from steplog.projections.plan import Key, key_of

TABLE = "registration_job_steps"

_STATUSES = frozenset({"pending", "in_progress", "retrying", "completed", "failed", "skipped"})


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of that table, and what is not in it: the job's input, and results that later sub-steps need."""

    job_id: str
    sub_step_progress: dict[str, Any]
    input: Any = None
    results: dict[Key, Any] | None = None
    step_number: int = 6

    @property
    def name(self) -> str:
        """Where it is, as the job's history says it."""
        return f"{TABLE}/{self.job_id}/{self.step_number}"


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a row; no job where it was not in flight."""

    row: str
    job_id: str | None
    outcome: Literal["adopted", "there already", "not in flight"]


def adopt(store: Store, definition: AnyDefinition, row: TableRow, *, by: str, clock: Clock | None = None) -> Adopted:
    """Make the row a job of the workflow, which `resume` or a worker runs on from where the row is.

    Raises AdoptionRefused where the row does not fit the workflow, InputRefused, KeyConflict.
    """
    if row.sub_step_progress.get("current_phase") == "completed":
        return Adopted(row.name, None, "not in flight")
    clock = clock or SystemClock()
    vault = new_vault(clock.new_id())
    job_id, now = vault.job_id, clock.now()
    facts = beginning(definition, row, by, vault)
    events = seal(job_id, Position(0, _hash_of(row)), facts, now, clock)
    hashed, data_key = input_hash(facts[0].as_data().get("input")), vault.key_of_new_job()
    job = NewJob(job_id, events, head_of(begun(job_id, facts, now)), hashed, data_key=data_key)
    made = _created(store, definition, row, job)
    return Adopted(row.name, made, "adopted" if made == job_id else "there already")


def _created(store: Store, definition: AnyDefinition, row: TableRow, job: NewJob) -> str:
    try:
        return store.create(job)
    except KeyConflict as conflict:
        key = store.data_keys.find(conflict.job_id)
        return store.create(as_of_holder(definition, row.input, job, conflict, key))


def rows_of(lines: Iterable[bytes]) -> Iterator[TableRow]:
    """The rows of JSON lines, each with the fields of TableRow. Raises AdoptionRefused."""
    for number, line in enumerate(lines, 1):
        try:
            yield TableRow(**orjson.loads(line))
        except (ValueError, TypeError) as error:
            raise AdoptionRefused(f"line {number}", f"no row: {error}") from None


def beginning(definition: AnyDefinition, row: TableRow, by: str, vault: Vault) -> list[EventData]:
    """What the row's history begins with. Raises AdoptionRefused, InputRefused."""
    plan = plan_of(definition)
    steps = _sub_steps(row)
    known = {key_of(phase["name"], step["name"]): step for phase in plan["phases"] for step in phase["sub_steps"]}
    if unknown := sorted(steps.keys() - known.keys()):
        raise AdoptionRefused(row.name, f"workflow {definition.name} has no {', '.join(unknown)}")
    settled = [
        _inherited(definition, row, key, steps[key], vault)
        for key in known
        if key in steps and _is_settled(steps[key], optional=known[key]["optional"])
    ]
    in_flight = [key for key in known if steps.get(key, {}).get("status") in ("in_progress", "retrying")]
    forked = JobForked(
        workflow=definition.name,
        workflow_version=definition.version,
        plan=dict(plan),
        input=given_input(definition, row.input, vault),
        context=_context(definition, row, vault),
        from_job_id=row.name,
        from_version=1,
        parent_hash=_hash_of(row),
        inherited=len(settled),
        key=row.job_id,
        by=by,
        reason=f"taken from {row.name}" + (f"; in flight there: {', '.join(in_flight)}" if in_flight else ""),
    )
    return [forked, *settled]


def _sub_steps(row: TableRow) -> dict[Key, dict[str, Any]]:
    try:
        found = {
            key_of(phase, name): step
            for phase, of in row.sub_step_progress["phases"].items()
            for name, step in of["sub_steps"].items()
        }
        unknown = {step["status"] for step in found.values()} - _STATUSES
    except (KeyError, TypeError, AttributeError) as error:
        raise AdoptionRefused(row.name, f"its progress has another shape: {error!r}") from None
    if unknown:
        raise AdoptionRefused(row.name, f"unknown status {', '.join(sorted(map(str, unknown)))}")
    return found


def _is_settled(step: dict[str, Any], *, optional: bool) -> bool:
    """A failure that stops the job is tried again; one that was tolerated is not."""
    return step["status"] in ("completed", "skipped") or (step["status"] == "failed" and optional)


def _inherited(
    definition: AnyDefinition, row: TableRow, key: Key, step: dict[str, Any], vault: Vault
) -> SubStepInherited:
    phase, _, name = key.partition("/")
    results = row.results or {}
    error = {"type": "Error", "message": str(step.get("error")), "retryable": False}
    return SubStepInherited(
        phase=phase,
        sub_step=name,
        generation=1,
        attempts=step.get("attempts", step.get("attempt", 0)),
        status=step["status"],
        result=given_result(definition, key, results[key], vault) if key in results else None,
        error=error if step["status"] == "failed" else None,
        reason=step.get("reason"),
        started_at=_instant(row, step.get("started_at")),
        completed_at=_instant(row, step.get("completed_at")),
        from_event=1,
    )


def _context(definition: AnyDefinition, row: TableRow, vault: Vault) -> dict[str, Any]:
    try:
        return fields_of(definition.context_type(**row.sub_step_progress.get("context", {})), vault)
    except (ValidationError, TypeError) as error:
        problems = problems_of(error) if isinstance(error, ValidationError) else [str(error)]
        raise AdoptionRefused(row.name, f"its context does not fit: {'; '.join(problems)}") from None


def _instant(row: TableRow, milliseconds: Any) -> str | None:
    if milliseconds is None:
        return None
    if not isinstance(milliseconds, int):
        raise AdoptionRefused(row.name, f"no time: {milliseconds!r}")
    return instant(milliseconds / 1000)


def _hash_of(row: TableRow) -> str:
    """What the job's chain begins with: the row as it was."""
    return sha256(orjson.dumps(row.sub_step_progress, option=orjson.OPT_SORT_KEYS)).hexdigest()
