"""`Recorder`: one call per change of a sub-step or a phase, durable when it returns, for an engine that is not ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from steplog.engine.calling import error_data
from steplog.engine.config import store_url
from steplog.engine.context import Context
from steplog.engine.decider import idempotency_key
from steplog.engine.definition import Definition
from steplog.engine.errors import RecordRefused
from steplog.engine.history import load
from steplog.engine.lookup import find_sub_step
from steplog.engine.plan import plan_of
from steplog.engine.recording import Described, Recording, append_next, open_recording
from steplog.engine.step import NoInput
from steplog.engine.store_clock import store_clock
from steplog.eventstore import events as ev
from steplog.eventstore.clock import seconds_between
from steplog.eventstore.codec import check_name
from steplog.eventstore.connect import open_store
from steplog.eventstore.events import EventData
from steplog.eventstore.store import Store
from steplog.projections.plan import Key, Plan, Shape, split_key
from steplog.projections.readiness import sub_step_of
from steplog.projections.snapshot import snapshot
from steplog.projections.state import SETTLED, State, SubStepState

SubStepChange = Literal["in_progress", "retrying", "completed", "failed", "skipped"]
PhaseChange = Literal["in_progress", "completed", "failed"]
Phases = Mapping[str, Sequence[str]]
"""The names of each phase's sub-steps, in order."""


class Recorder:
    """Records one job of an engine that is not ours; usable from any thread, one call after the other.

    Opening the same key again gives a fresh claim: the recorder before it is fenced, and what it had in progress is
    interrupted. Every call raises OwnershipLost from then on, RecordRefused where it does not fit the job.
    """

    def __init__(self, store: Store, recording: Recording, *, owns_store: bool = False) -> None:
        self._store = store
        self._owns_store = owns_store
        self._clock = store_clock(store)
        self._recording = recording
        self._shape = Shape.of(recording.loaded.state["plan"])
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        workflow: str | Definition[Any, Any],
        phases: Phases | None = None,
        *,
        key: str | None = None,
        input: Any = None,
        context: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        by: str = "recorder",
        store: Store | str | None = None,
    ) -> Recorder:
        """Begin to record a job, or go on with the one that has the key.

        `phases` names the sub-steps of each phase, in order; a declared Workflow has them already. Raises KeyConflict
        where the key belongs to another input, WrongState where that job has ended or our own engine runs it.
        """
        name = workflow.name if isinstance(workflow, Definition) else workflow
        plan = plan_of(workflow) if isinstance(workflow, Definition) else plan_named(name, phases or {})
        opened = open_store(store or store_url()) if store is None or isinstance(store, str) else store
        try:
            described = Described(name, plan, input=input, context=context, tags=tags)
            recording = open_recording(opened, described, by=check_name(by, "by"), key=key)
        except BaseException:
            if opened is not store:
                opened.close()
            raise
        return cls(opened, recording, owns_store=opened is not store)

    def close(self) -> None:
        """Let go of the store, where it was opened for this recorder; the job stays as it is."""
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- what is known of the job ------------------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        return self._recording.job_id

    @property
    def version(self) -> int:
        return self._recording.version

    @property
    def snapshot(self) -> dict[str, Any]:
        """The phase/sub-step JSON, as of the last call."""
        return snapshot(self._recording.loaded.state)

    @property
    def asked_to(self) -> Literal["pause", "cancel"] | None:
        """What a person has asked of the job, as of the last call: the engine is to obey, and to say so."""
        return self._recording.loaded.state["requested"]

    # --- what changes it ---------------------------------------------------------------------------------------------

    def update_sub_step(
        self,
        name: str,
        status: SubStepChange,
        *,
        result: Any = None,
        error: str | BaseException | None = None,
        reason: str | None = None,
        retry_at: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> int:
        """Record that a sub-step changed, and what it set in the context: one append. The job's version afterwards.

        `name` is the sub-step's, or `phase/name`. An outcome of one that was not in progress records its start too,
        and the first start that of its phase. `error` goes with failed and retrying, `reason` with skipped.
        """
        make = _OUTCOMES[status]
        told = _Told(result, error, reason, retry_at, dict(context or {}))

        def events(state: State, at: str) -> list[EventData]:
            key = find_sub_step(state, name)
            begun = [] if status == "skipped" or _runs(state, key) else _start(state, self._shape, key)
            if status == "in_progress" and not begun:
                raise RecordRefused(state["job_id"], f"{key} is in progress already")
            changed = _changed(key, told.context)
            return [*begun, *changed, *make(state, key, told, at, len(begun) > 0)]

        return self._append(events)

    def update_phase(self, name: str, status: PhaseChange, *, context: Mapping[str, Any] | None = None) -> int:
        """Record that a phase began, completed or failed, and what changed in the context meanwhile."""

        def events(state: State, at: str) -> list[EventData]:
            if name not in self._shape.phases:
                raise RecordRefused(state["job_id"], f"there is no phase {name}")
            changed: list[EventData] = [ev.ContextChanged(set=dict(context))] if context else []
            return [*changed, _phase_event(state, self._shape, name, status)]

        return self._append(events)

    def progress(self, name: str, done: float, total: float | None = None, note: str | None = None) -> int:
        """Record how far a sub-step in progress is."""

        def events(state: State, at: str) -> list[EventData]:
            key = find_sub_step(state, name)
            return [ev.SubStepProgressed(**_attempt(state, key), done=done, total=total, note=note)]

        return self._append(events)

    def set_context(self, **values: Any) -> int:
        """Record that fields of the context have new values."""
        return self._append(lambda state, at: [ev.ContextChanged(set=values)])

    def complete(self) -> int:
        """Record that the job is done; nothing can be recorded after it."""
        return self._append(lambda state, at: [ev.JobCompleted()])

    def fail(self, name: str, error: str | BaseException) -> int:
        """Record that the job failed because of that sub-step: it waits for a person, or to be opened again."""

        def events(state: State, at: str) -> list[EventData]:
            phase, sub_step = split_key(find_sub_step(state, name))
            return [ev.JobFailed(error=_error(error), phase=phase, sub_step=sub_step)]

        return self._append(events)

    def obey(self) -> int:
        """Record that the job stopped or ended as a person had asked."""

        def events(state: State, at: str) -> list[EventData]:
            if state["requested"] is None:
                raise RecordRefused(state["job_id"], "nobody asked for anything")
            who = state["requested_by"] or {"by": "engine"}
            return [ev.JobPaused(**who) if state["requested"] == "pause" else ev.JobCancelled(**who)]

        return self._append(events)

    def _append(self, events: Callable[[State, str], list[EventData]]) -> int:
        with self._lock:
            while True:
                state = self._recording.loaded.state
                made = events(state, max(self._clock.now(), state["recorded_at"]))
                after = append_next(self._store, self._clock, self._recording, made)
                if after is not None:
                    self._recording = after
                    return after.version
                self._recording = Recording(load(self._store, self.job_id), self._recording.claim)


# --- changes as events, pure -----------------------------------------------------------------------------------------


class _Told:
    """What the other engine said of an outcome."""

    def __init__(self, result: Any, error: Any, reason: str | None, retry_at: str | None, context: dict[str, Any]):
        self.result = result
        self.error = error
        self.reason = reason
        self.retry_at = retry_at
        self.context = context


def plan_named(workflow: str, phases: Phases) -> Plan:
    """A plan of nothing but names. Raises DefinitionError."""
    definition = Definition(workflow, NoInput, Context, "1")
    for phase, names in phases.items():
        declared = definition.phase(phase)
        for name in names:
            declared.sub_step(name=name)(_elsewhere)
    return plan_of(definition)


def _elsewhere() -> None:
    """What stands in for a handler that another engine has."""


def _runs(state: State, key: Key) -> bool:
    return sub_step_of(state, key)["status"] == "in_progress"


def _start(state: State, shape: Shape, key: Key) -> list[EventData]:
    """The start of the next attempt, and of the phase where it is the first."""
    phase, name = split_key(key)
    sub_step = sub_step_of(state, key)
    if sub_step["status"] in SETTLED and sub_step["status"] != "failed":
        raise RecordRefused(state["job_id"], f"{key} is {sub_step['status']} already")
    started = ev.SubStepStarted(
        phase=phase,
        sub_step=name,
        generation=sub_step["generation"],
        attempt=sub_step["attempts"] + 1,
        idempotency_key=idempotency_key(state["job_id"], key, sub_step["key_generation"]),
        needs=[*shape.sub_steps[key]["after"], *shape.sub_steps[key]["needs"]],
    )
    begins = state["phases"][phase]["status"] == "pending"
    return [ev.PhaseStarted(phase=phase), started] if begins else [started]


def _attempt(state: State, key: Key, begun: bool = False) -> dict[str, Any]:
    phase, name = split_key(key)
    sub_step = sub_step_of(state, key)
    attempt = sub_step["attempts"] + begun
    if attempt < 1:
        raise RecordRefused(state["job_id"], f"{key} has not begun")
    return {"phase": phase, "sub_step": name, "generation": sub_step["generation"], "attempt": attempt}


def _seconds(sub_step: SubStepState, at: str, begun: bool) -> float:
    return 0.0 if begun or sub_step["started_at"] is None else max(0.0, seconds_between(sub_step["started_at"], at))


def _completed(state: State, key: Key, told: _Told, at: str, begun: bool) -> list[EventData]:
    seconds = _seconds(sub_step_of(state, key), at, begun)
    return [ev.SubStepCompleted(**_attempt(state, key, begun), result=told.result, seconds=seconds)]


def _failed(state: State, key: Key, told: _Told, at: str, begun: bool) -> list[EventData]:
    seconds = _seconds(sub_step_of(state, key), at, begun)
    return [ev.SubStepFailed(**_attempt(state, key, begun), error=_error(told.error), seconds=seconds)]


def _retrying(state: State, key: Key, told: _Told, at: str, begun: bool) -> list[EventData]:
    attempt = _attempt(state, key, begun)
    coming = {**attempt, "attempt": attempt["attempt"] + 1}
    return [
        *_failed(state, key, told, at, begun),
        ev.SubStepRetryScheduled(**coming, retry_at=told.retry_at or at),
    ]


def _skipped(state: State, key: Key, told: _Told, at: str, begun: bool) -> list[EventData]:
    phase, name = split_key(key)
    sub_step = sub_step_of(state, key)
    if sub_step["status"] in SETTLED:
        raise RecordRefused(state["job_id"], f"{key} is {sub_step['status']} already")
    generation, reason = sub_step["generation"], told.reason or "skipped"
    begins = state["phases"][phase]["status"] == "pending"
    skipped = ev.SubStepSkipped(phase=phase, sub_step=name, generation=generation, cause="condition", reason=reason)
    return [ev.PhaseStarted(phase=phase), skipped] if begins else [skipped]


_OUTCOMES: dict[str, Callable[[State, Key, _Told, str, bool], list[EventData]]] = {
    "in_progress": lambda state, key, told, at, begun: [],
    "retrying": _retrying,
    "completed": _completed,
    "failed": _failed,
    "skipped": _skipped,
}


def _changed(key: Key, values: dict[str, Any]) -> list[EventData]:
    phase, name = split_key(key)
    return [ev.ContextChanged(set=values, phase=phase, sub_step=name)] if values else []


def _phase_event(state: State, shape: Shape, name: str, status: PhaseChange) -> EventData:
    of_phase = state["phases"][name]
    if of_phase["status"] == status:
        raise RecordRefused(state["job_id"], f"phase {name} is {status} already")
    if status == "in_progress":
        return ev.PhaseStarted(phase=name)
    if of_phase["in_progress"]:
        raise RecordRefused(state["job_id"], f"{', '.join(of_phase['in_progress'])} of {name} is in progress")
    if status == "failed":
        failed = [key for key in shape.of_phase[name] if sub_step_of(state, key)["status"] == "failed"]
        return ev.PhaseFailed(phase=name, failed=failed)
    if of_phase["unsettled"]:
        open_ones = [sub for sub, step in of_phase["sub_steps"].items() if step["status"] not in SETTLED]
        raise RecordRefused(state["job_id"], f"{', '.join(open_ones)} of {name} has no outcome yet")
    return ev.PhaseCompleted(phase=name)


def _error(error: str | BaseException | None) -> dict[str, Any]:
    """An error as the log keeps it: always recordable, whatever its text."""
    if isinstance(error, BaseException):
        return error_data(error, False, str)
    return {**error_data(Exception(error or "failed"), False, str), "type": "Error"}
