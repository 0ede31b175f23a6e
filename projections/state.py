"""The state of a job: the complete fold of its log, as plain JSON, and the vocabulary of its statuses.

`snapshots` stores it, `evolve` goes on from it. People see `snapshot`, `resume_point` and the timeline, made from it.
"""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict

from steplog.projections.plan import Key, PhasePlan, Plan, key_of

REDUCER_VERSION = 8
"""Raised whenever the same events fold to another state: stored states of other versions are folded anew."""

JobStatus = Literal[
    "queued", "running", "waiting", "paused", "parked", "failed", "compensating", "completed", "cancelled"
]
PhaseStatus = Literal["pending", "in_progress", "completed", "failed"]
SubStepStatus = Literal[
    "pending", "waiting", "in_progress", "retrying", "interrupted", "completed", "failed", "skipped"
]

SETTLED = frozenset({"completed", "failed", "skipped"})
"""Sub-step statuses that nothing but a person changes."""

ENDED = frozenset({"completed", "cancelled"})
"""Job statuses that end the job."""

GOING_ON = frozenset({"running", "compensating"})
"""Job statuses of one that a worker runs."""

STOPPED = frozenset({"paused", "parked", "failed"})
"""Job statuses that wait for a person."""


class Wait(TypedDict):
    """What a waiting sub-step waits for."""

    kind: str
    until: str | None
    signal: str | None


class SubStepState(TypedDict):
    """A sub-step between its first event and its last. Times are instants, `seconds` those of the latest attempt."""

    status: SubStepStatus
    generation: int
    key_generation: int
    """The generation its idempotency key is made of: behind `generation` after a reset that kept the key."""
    attempts: int
    """How many attempts began, over all generations: also the number of the latest."""
    failures: int
    """Attempts that used up the budget of this generation."""
    interruptions: int
    """Attempts of this generation that ended with their owner."""
    when: bool | None
    started_at: str | None
    started_version: int | None
    completed_at: str | None
    seconds: float | None
    result: Any
    error: dict[str, Any] | None
    reason: str | None
    retry_at: str | None
    idempotency_key: str | None
    progress: dict[str, Any] | None
    cursor: Any
    draft: dict[str, Any] | None
    wait: Wait | None
    deadline_at: str | None
    """When it has failed unless it has settled, if it has begun and has a deadline."""
    items: Items | None
    """Those of a fan-out that has been expanded."""
    compensation: CompensationState | None
    completed_version: int | None
    """The version at which it completed: what completed last is undone first."""


class CompensationState(TypedDict):
    """How far undoing a sub-step has come."""

    status: Literal["in_progress", "retrying", "interrupted", "failed", "completed"]
    attempts: int
    failures: int
    interruptions: int
    error: dict[str, Any] | None
    retry_at: str | None
    idempotency_key: str
    seconds: float | None


class Undoing(TypedDict):
    """Why a job is undone, and who asked for it if somebody did."""

    because: Literal["failed", "cancelled"]
    by: str | None
    reason: str | None


class Items(TypedDict):
    """The items of a fan-out: compact where they only wait for their turn or have settled. Never changed in place: each
    event puts another one in its place, which shares what did not change.
    """

    group: str
    """Which expansion they are of."""
    complete: bool
    """Whether all of them are known; until then none runs."""
    keys: list[str]
    inputs: list[Any]
    next: int
    """The first one that has neither begun nor settled; behind the last one if there is none."""
    active: dict[str, SubStepState]
    """By key, those that have begun and not settled: as many as run, and wait to run again."""
    places: dict[str, int]
    """Where the active ones stand in `keys`."""
    in_progress: dict[str, bool]
    suspended: dict[str, bool]
    """Retrying or interrupted: begun, and with no attempt in progress."""
    settled: list[list[SettledItem | None]]
    """What became of those that have settled, by their place, in pages."""
    completed: int
    failed: int
    skipped: int
    latest: list[Any]
    """Key and place of the one that settled last: what follows is likely to be about it again."""


class SettledItem(TypedDict, total=False):
    """What is kept of an item: the fields of its state that are not as they were before it began."""

    status: Required[SubStepStatus]
    generation: int
    key_generation: int
    attempts: int
    failures: int
    interruptions: int
    started_version: int | None
    seconds: float | None
    result: Any
    error: dict[str, Any] | None
    reason: str | None
    cursor: Any
    draft: dict[str, Any] | None
    """Of one that failed: where its next attempt goes on, should it have one."""


class PhaseState(TypedDict):
    """A phase. `ready`, `in_progress`, `suspended` and `failed` are sets of sub-step names: what deciding looks at, so
    that it costs what changed and not what exists.
    """

    status: PhaseStatus
    started_at: str | None
    completed_at: str | None
    unsettled: int
    ready: dict[str, bool]
    """Pending, and every edge leads to something settled."""
    in_progress: dict[str, bool]
    suspended: dict[str, bool]
    """Retrying, interrupted or waiting: begun, and with no attempt in progress."""
    failed: dict[str, bool]
    open_edges: dict[str, int]
    """How many edges lead to something that has not settled; those with none are left out."""
    sub_steps: dict[str, SubStepState]


class State(TypedDict):
    """Everything the log of a job says, folded."""

    job_id: str
    version: int
    recorded_at: str
    created_at: str
    ended_at: str | None
    workflow: str
    workflow_version: str
    mode: str
    plan: Plan
    input: Any
    input_version: int
    """The version at which a person last edited the input, 0 if nobody did."""
    key: str | None
    tags: dict[str, str]
    priority: int
    run_at: str | None
    batch_id: str | None
    traceparent: str | None
    origin: dict[str, Any] | None
    """The job and version this one was forked from, how many sub-steps it inherits, and how many are still missing."""
    status: JobStatus
    reason: str | None
    """Why it stopped, where it did."""
    error: dict[str, Any] | None
    warnings: list[str]
    worker_id: str | None
    epoch: int
    wake_at: str | None
    requested: Literal["pause", "cancel"] | None
    """What was asked of the job's owner and is not done."""
    requested_by: dict[str, Any] | None
    """Who asked, and why: `{by, reason}`."""
    context: dict[str, Any]
    refused: dict[str, dict[str, Any]]
    """By sub-step, context fields it wrote that something without an edge to it had written; a person decides."""
    writers: dict[str, dict[str, int]]
    """By context field, the version at which each writer (a sub-step's key, or "" for a person) last wrote it."""
    signals: dict[str, list[dict[str, Any]]]
    erased: bool
    """Whether the key to its secrets was destroyed: it cannot run, and cannot be forked."""
    undoing: Undoing | None
    """Set from its first compensation on: whatever comes, the job can only be forked then."""
    last_error: str | None
    done: int
    total: int
    dependents: dict[Key, list[Key]]
    """By sub-step, those that have an edge from it."""
    deadlines: dict[Key, float]
    """By sub-step, the seconds it may take; those without a deadline are left out."""
    deadline_at: str | None
    """When the job has failed unless it has ended, if it has a deadline."""
    phases: dict[str, PhaseState]


def new_sub_step() -> SubStepState:
    """A sub-step nothing has happened to."""
    return _UNTOUCHED.copy()


_UNTOUCHED = SubStepState(
    status="pending",
    generation=1,
    key_generation=1,
    attempts=0,
    failures=0,
    interruptions=0,
    when=None,
    started_at=None,
    started_version=None,
    completed_at=None,
    seconds=None,
    result=None,
    error=None,
    reason=None,
    retry_at=None,
    idempotency_key=None,
    progress=None,
    cursor=None,
    draft=None,
    wait=None,
    deadline_at=None,
    items=None,
    compensation=None,
    completed_version=None,
)


def new_phases(plan: Plan) -> dict[str, PhaseState]:
    """The phases of a plan before anything ran."""
    return {phase["name"]: _new_phase(phase) for phase in plan["phases"]}


def _new_phase(plan: PhasePlan) -> PhaseState:
    edges = {step["name"]: len({*step["after"], *step["needs"]}) for step in plan["sub_steps"]}
    return PhaseState(
        status="pending",
        started_at=None,
        completed_at=None,
        unsettled=len(edges),
        ready={name: True for name in edges if not edges[name]},
        in_progress={},
        suspended={},
        failed={},
        open_edges={name: count for name, count in edges.items() if count},
        sub_steps={name: new_sub_step() for name in edges},
    )


def dependents_of(plan: Plan) -> dict[Key, list[Key]]:
    """By sub-step, those that have an edge from it; those with none are left out."""
    found: dict[Key, list[Key]] = {}
    for phase in plan["phases"]:
        for step in phase["sub_steps"]:
            for edge in dict.fromkeys((*step["after"], *step["needs"])):
                found.setdefault(edge, []).append(key_of(phase["name"], step["name"]))
    return found


def deadlines_of(plan: Plan) -> dict[Key, float]:
    """By sub-step, the seconds it may take; those without a deadline are left out."""
    return {
        key_of(phase["name"], step["name"]): step["deadline_s"]
        for phase in plan["phases"]
        for step in phase["sub_steps"]
        if "deadline_s" in step
    }


def is_whole(state: State) -> bool:
    """Whether the job has all that it inherits from the one it was forked from; until then nobody may run it."""
    return state["origin"] is None or state["origin"]["missing"] == 0


def current_phase(state: State) -> str | None:
    """The first phase, in the plan's order, that is not completed; None when all are."""
    for phase in state["plan"]["phases"]:
        if state["phases"][phase["name"]]["status"] != "completed":
            return phase["name"]
    return None
