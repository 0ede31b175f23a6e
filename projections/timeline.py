"""The timeline: a job's history as spans of time. One pass over the events, in memory that grows with the attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from typing_extensions import TypedDict  # the one that the API's description is made from on Python 3.11

from steplog.eventstore.events import Event
from steplog.projections.evolve import fold
from steplog.projections.fan_out import counts_of
from steplog.projections.plan import Key, key_of
from steplog.projections.state import ENDED, STOPPED, PhaseStatus, State, SubStepStatus
from steplog.projections.sub_step_rules import ENGINE

AttemptStatus = Literal["in_progress", "completed", "failed", "skipped", "interrupted"]


class Attempt(TypedDict):
    """One run of a handler, or of its compensation; `ended_at` is None while it runs."""

    number: int
    generation: int
    compensation: bool
    started_at: str
    ended_at: str | None
    status: AttemptStatus
    error: dict[str, Any] | None
    """`{type, message}` where it failed."""
    reason: str | None
    """Why it was interrupted or skipped, or what a person said who settled it."""


class Wait(TypedDict):
    """A time in which the sub-step held no worker: a back-off (`retry`), a sleep, a signal, a limit."""

    kind: str
    signal: str | None
    due_at: str | None
    started_at: str
    ended_at: str | None


class Mark(TypedDict):
    """Something that happened to the sub-step outside its attempts, at one instant."""

    kind: Literal["completed", "failed", "skipped", "reset", "inherited", "late"]
    at: str
    version: int
    reason: str | None


class SubStepLine(TypedDict):
    """What happened to a sub-step; `status` is None for one that the job's present plan no longer has.

    A fan-out's attempts are the times in which any of its items ran; `items` are those in numbers.
    """

    name: str
    status: SubStepStatus | None
    attempts: list[Attempt]
    waits: list[Wait]
    marks: list[Mark]
    items: dict[str, int] | None


class PhaseLine(TypedDict):
    """A phase and its sub-steps, in the plan's order; behind them those that only an earlier plan had."""

    name: str
    status: PhaseStatus | None
    started_at: str | None
    completed_at: str | None
    sub_steps: list[SubStepLine]


class Gap(TypedDict):
    """A time in which no process ran the job; `ended_at` is None until one does again.

    `cause` is `crashed`, where it begins with the last event of the owner that died, else the status that the job had.
    """

    cause: str
    reason: str | None
    started_at: str
    ended_at: str | None


class Timeline(TypedDict):
    """A job as of a version: what `GET /jobs/{id}/timeline` answers. Instants are RFC 3339 UTC.

    What is open reaches up to `edge_at`. The edge is `live` where it moves on by itself; it stands still once the job
    ended, waits for a person or lost its process, and in a view of the past.
    """

    job_id: str
    workflow: str
    status: str
    version: int
    began_at: str
    ended_at: str | None
    edge_at: str
    live: bool
    phases: list[PhaseLine]
    gaps: list[Gap]


def timeline(events: Iterable[Event], now: str | None = None, *, stalled: bool = False) -> Timeline:
    """The timeline of the job with these events, as of the last of them, or as of `now` where that is given.

    `stalled` says that the job's owner is known to be dead. Raises what `fold` raises.
    """
    spans = _Spans()
    state = fold(spans.noting(events))
    live = now is not None and not stalled and state["status"] not in (*ENDED, *STOPPED)
    if stalled:
        spans.owner_died(None)
    elif state["status"] in ENDED:
        del spans.gaps[spans.settled_gaps :]
    return Timeline(
        job_id=state["job_id"],
        workflow=state["workflow"],
        status="stalled" if stalled else state["status"],
        version=state["version"],
        began_at=state["created_at"],
        ended_at=state["ended_at"],
        edge_at=max(now, state["recorded_at"]) if live and now else state["recorded_at"],
        live=live,
        phases=_phases(state, spans.lines),
        gaps=spans.gaps,
    )


def _phases(state: State, lines: dict[Key, SubStepLine]) -> list[PhaseLine]:
    found: dict[str, PhaseLine] = {}
    for name, phase in ((plan["name"], state["phases"][plan["name"]]) for plan in state["plan"]["phases"]):
        found[name] = PhaseLine(
            name=name,
            status=phase["status"],
            started_at=phase["started_at"],
            completed_at=phase["completed_at"],
            sub_steps=[],
        )
        for sub_step, of in phase["sub_steps"].items():
            line = lines.pop(key_of(name, sub_step), None) or _line(sub_step)
            line["status"] = of["status"]
            line["items"] = None if of["items"] is None else counts_of(of["items"])._asdict()
            found[name]["sub_steps"].append(line)
    for key, line in lines.items():
        name = key.partition("/")[0]
        gone = PhaseLine(name=name, status=None, started_at=None, completed_at=None, sub_steps=[])
        found.setdefault(name, gone)["sub_steps"].append(line)
    return list(found.values())


def _line(name: str) -> SubStepLine:
    return SubStepLine(name=name, status=None, attempts=[], waits=[], marks=[], items=None)


# --- events, one after the other -------------------------------------------------------------------------------------

_OF_OTHERS = frozenset({"SignalReceived", "JobPauseRequested", "JobCancelRequested"})
"""Events that tell nothing of the owner: others append them while it runs, or is dead."""

_LEAVE = frozenset({"JobReleased", "JobPaused", "JobParked", "JobFailed", "JobCancelled", "JobCompleted"})
"""Events after which no process runs the job."""

_STATUS = {
    "JobCreated": "queued",
    "JobForked": "queued",
    "JobPaused": "paused",
    "JobParked": "parked",
    "JobFailed": "failed",
    "JobCancelled": "cancelled",
    "JobCompleted": "completed",
}


_ITEM_MARKS_MAX = 20
"""How many late outcomes of its items a fan-out's line shows."""


class _Spans:
    """The spans that the events so far make."""

    def __init__(self) -> None:
        self.lines: dict[Key, SubStepLine] = {}
        self.gaps: list[Gap] = []
        self._owned = False
        self._fanning_out: list[SubStepLine] = []
        self._sign_of_life = ""
        """When the owner's last event was recorded."""

    @property
    def settled_gaps(self) -> int:
        """How many gaps are over; only the last one can be open."""
        return len(self.gaps) - bool(self.gaps and self.gaps[-1]["ended_at"] is None)

    def noting(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events as they come; each is noted once the fold has accepted it."""
        for event in events:
            yield event
            self._note(event)

    def owner_died(self, taken_over_at: str | None) -> None:
        """Leave a gap from the last sign of life on."""
        self._open_gap("crashed", None, self._sign_of_life)
        self.gaps[-1]["ended_at"] = taken_over_at

    def _note(self, event: Event) -> None:
        if event.type == "JobClaimed":
            self._claimed(event.recorded_at)
        elif event.type in _LEAVE or event.version == 1:
            self._left(event)
        elif "item" in event.data or event.type == "SubStepExpanded":
            self._note_item(self._line_of(event.data["phase"], event.data["sub_step"]), event)
        elif "sub_step" in event.data and event.type in _NOTES:
            _NOTES[event.type](self, self._line_of(event.data["phase"], event.data["sub_step"]), event)
        elif event.type == "SubStepReset":
            for key in event.data["sub_steps"]:
                self._reset(key, event)
        if event.type not in _OF_OTHERS and event.data.get("by", ENGINE) == ENGINE:
            self._sign_of_life = event.recorded_at

    def _note_item(self, line: SubStepLine, event: Event) -> None:
        """The group's bar, whichever items it is of: it ends with the group, or when its owner leaves."""
        if event.type in ("SubStepStarted", "SubStepExpanded") and _open_attempt(line) is None:
            number = len(line["attempts"]) + 1
            self.started(line, event._replace(data={**event.data, "attempt": number}))
            self._fanning_out.append(line)
        elif event.type == "LateOutcome" and len(line["marks"]) < _ITEM_MARKS_MAX:
            self.late(line, event)

    def _pause_groups(self, cause: str, at: str) -> None:
        for line in self._fanning_out:
            if (attempt := _open_attempt(line)) is not None:
                attempt["status"], attempt["ended_at"], attempt["reason"] = "interrupted", at, cause
        self._fanning_out.clear()

    def _claimed(self, at: str) -> None:
        if self._owned:
            self.owner_died(at)
            self._pause_groups("owner died", self.gaps[-1]["started_at"])
        else:
            self.gaps[-1]["ended_at"] = at
        self._owned = True

    def _left(self, event: Event) -> None:
        data = event.data
        cause = _STATUS.get(event.type) or ("waiting" if data.get("wake_at") else "queued")
        error = data.get("error")
        self._pause_groups(cause, event.recorded_at)
        self._open_gap(cause, error.get("message") if error else data.get("reason"), event.recorded_at)
        self._owned = False

    def _open_gap(self, cause: str, reason: str | None, at: str) -> None:
        """Begin a gap; one that is open already began in the same way or for a stronger reason: it goes on."""
        if self.settled_gaps == len(self.gaps):
            self.gaps.append(Gap(cause=cause, reason=reason, started_at=at, ended_at=None))
        elif cause in STOPPED:
            self.gaps[-1]["cause"], self.gaps[-1]["reason"] = cause, reason

    def _line_of(self, phase: str, name: str) -> SubStepLine:
        return self.lines.setdefault(key_of(phase, name), _line(name))

    def _reset(self, key: Key, event: Event) -> None:
        line = self._line_of(*key.split("/", 1))
        _end_wait(line, event.recorded_at)
        _mark(line, "reset", event)

    def started(self, line: SubStepLine, event: Event) -> None:
        _end_wait(line, event.recorded_at)
        attempt = Attempt(
            number=event.data["attempt"],
            generation=event.data.get("generation", 1),
            compensation=event.type == "CompensationStarted",
            started_at=event.recorded_at,
            ended_at=None,
            status="in_progress",
            error=None,
            reason=None,
        )
        line["attempts"].append(attempt)

    def settled(self, line: SubStepLine, event: Event) -> None:
        """An outcome: of the attempt that runs, else of a wait, of a condition, or by hand."""
        _end_wait(line, event.recorded_at)
        status = _OUTCOMES[event.type]
        attempt = _open_attempt(line)
        if attempt is None:
            _mark(line, status, event)
            return
        attempt["status"] = status
        attempt["ended_at"] = event.recorded_at
        attempt["reason"] = event.data.get("reason")
        error = event.data.get("error")
        attempt["error"] = {name: error.get(name) for name in ("type", "message")} if error else None

    def interrupted(self, line: SubStepLine, event: Event) -> None:
        """What the owner left behind when it died ran no longer than the owner is known to have lived."""
        attempt = _open_attempt(line)
        if attempt is not None:
            died = event.data["cause"] == "owner died" and self.gaps[-1]["cause"] == "crashed"
            attempt["status"] = "interrupted"
            attempt["ended_at"] = self.gaps[-1]["started_at"] if died else event.recorded_at
            attempt["reason"] = event.data["cause"]
        if event.data.get("retry_at"):
            self.waits(line, event)

    def waits(self, line: SubStepLine, event: Event) -> None:
        _end_wait(line, event.recorded_at)
        data = event.data
        wait = Wait(
            kind=data.get("kind", "retry"),
            signal=data.get("signal"),
            due_at=data.get("retry_at", data.get("until")),
            started_at=event.recorded_at,
            ended_at=None,
        )
        line["waits"].append(wait)

    def inherited(self, line: SubStepLine, event: Event) -> None:
        _mark(line, "inherited", event)

    def late(self, line: SubStepLine, event: Event) -> None:
        _mark(line, "late", event)


_OUTCOMES: dict[str, Literal["completed", "failed", "skipped"]] = {
    "SubStepCompleted": "completed",
    "SubStepFailed": "failed",
    "SubStepSkipped": "skipped",
    "CompensationCompleted": "completed",
    "CompensationFailed": "failed",
}

_NOTES: dict[str, Callable[[_Spans, SubStepLine, Event], None]] = {
    **dict.fromkeys(_OUTCOMES, _Spans.settled),
    "SubStepStarted": _Spans.started,
    "CompensationStarted": _Spans.started,
    "SubStepInterrupted": _Spans.interrupted,
    "CompensationInterrupted": _Spans.interrupted,
    "SubStepRetryScheduled": _Spans.waits,
    "SubStepWaiting": _Spans.waits,
    "SubStepInherited": _Spans.inherited,
    "LateOutcome": _Spans.late,
}


def _open_attempt(line: SubStepLine) -> Attempt | None:
    last = line["attempts"][-1] if line["attempts"] else None
    return last if last and last["ended_at"] is None else None


def _end_wait(line: SubStepLine, at: str) -> None:
    if line["waits"] and line["waits"][-1]["ended_at"] is None:
        line["waits"][-1]["ended_at"] = at


def _mark(line: SubStepLine, kind: Any, event: Event) -> None:
    error = event.data.get("error")
    reason = error.get("message") if error else event.data.get("reason")
    line["marks"].append(Mark(kind=kind, at=event.recorded_at, version=event.version, reason=reason))
