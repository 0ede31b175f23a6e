"""The decider: from a job's state and what has happened, the events that follow. Pure: the engine's specification.

It works on the state its own events lead to, so one call may complete a sub-step, its phase, and start the next: all
of it is one append.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from steplog.engine import facts as fact
from steplog.engine.facts import AttemptId, Fact, Situation
from steplog.eventstore import events as ev
from steplog.eventstore.clock import later
from steplog.eventstore.codec import encode
from steplog.projections.context_rules import OPERATOR
from steplog.projections.evolve import Evolution
from steplog.projections.plan import Key, RetryPlan, Shape, WaitPlan, key_of, split_key
from steplog.projections.readiness import blocking_failure, in_order, sub_step_of, unmet_needs
from steplog.projections.state import State, SubStepState, current_phase

WARNINGS_MAX = 100
"""How many tolerated failures a completed job names; the rest it counts."""
WARNING_CHARS_MAX = 500

SUSPECT_AFTER = 2
"""Interruptions of a sub-step by its owner's death after which it may be what kills its owner."""
BACK_OFF_S_MAX = 60.0
"""The longest wait before a sub-step runs again whose owner died."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Events to append at the instant that was given, the state they lead to, and conditions to ask first."""

    events: Sequence[ev.EventData]
    state: State
    questions: Sequence[Key]
    """Sub-steps that could start but for their `when=`: decide again with answers, before appending."""
    unrecorded: Sequence[Fact]
    """Facts of attempts that were settled otherwise, of which no event tells."""


def decide(state: State, shape: Shape, happened: Iterable[Fact], now: str, situation: Situation) -> Decision:
    """What follows from the facts. `now` is not before the state's last event."""
    deciding = _Deciding(state, shape, now, situation)
    for each in happened:
        deciding.take(each)
    deciding.advance()
    return Decision(deciding.events, deciding.state, deciding.questions, deciding.unrecorded)


def idempotency_key(job_id: str, key: Key, generation: int, item: str | None = None) -> str:
    """The same for every attempt of a sub-step in one generation, and for nothing else."""
    return sha256("\n".join((job_id, key, item or "", str(generation))).encode()).hexdigest()[:32]


def next_due(state: State, decided_at: str) -> str | None:
    """The earliest instant at which time alone makes something startable that was not at the last decision.

    What was due then and has not started waits for something else: for room, or for a thread to end.
    """
    phase = current_phase(state)
    if phase is None or state["status"] != "running":
        return None
    of_phase = state["phases"][phase]
    due = (_due_at(of_phase["sub_steps"][name]) for name in of_phase["suspended"])
    return min((instant for instant in due if instant and instant > decided_at), default=None)


def _due_at(sub_step: SubStepState) -> str | None:
    """When time alone moves a sub-step that is suspended."""
    return sub_step["wait"]["until"] if sub_step["wait"] else sub_step["retry_at"]


def in_progress(state: State) -> list[AttemptId]:
    """Every attempt that was started and has no outcome."""
    return [
        AttemptId(phase, name, of_phase["sub_steps"][name]["generation"], of_phase["sub_steps"][name]["attempts"])
        for phase, of_phase in state["phases"].items()
        for name in of_phase["in_progress"]
    ]


class _Deciding:
    """One decision in the making."""

    def __init__(self, state: State, shape: Shape, now: str, situation: Situation) -> None:
        self.evolution = Evolution(state)
        self.state = state
        self.shape = shape
        self.now = now
        self.situation = situation
        self.events: list[ev.EventData] = []
        self.questions: list[Key] = []
        self.unrecorded: list[Fact] = []

    def emit(self, data: ev.EventData) -> None:
        self.events.append(data)
        self.evolution.foresee(data, self.now)
        self.state = self.evolution.state

    # --- facts -------------------------------------------------------------------------------------------------------

    def take(self, happened: Fact) -> None:
        match happened:
            case fact.Interrupted(cause=cause, worker_id=worker_id):
                self._interrupt(cause, worker_id)
            case _ if not self._counts(happened.of):
                self._late(happened)
            case fact.Completed():
                self._complete(happened)
            case fact.Failed(of=of):
                self._fail(of, happened.error, happened.seconds, happened.spread)
            case fact.SkipRaised(of=of, reason=reason):
                self.emit(ev.SubStepSkipped(**_names(of), attempt=of.attempt, cause="raised", reason=reason))
            case fact.CheckpointReached(of=of, cursor=cursor, changed=changed):
                draft = {"set": changed} if changed else {}
                self.emit(ev.SubStepCheckpointed(**_attempt(of), cursor=cursor, draft=draft))
            case fact.CommitUnknown(of=of, worker_id=worker_id):
                self.emit(ev.SubStepInterrupted(**_attempt(of), cause="commit unknown", worker_id=worker_id))
            case fact.Progressed(of=of, done=done, total=total, note=note):
                self.emit(ev.SubStepProgressed(**_attempt(of), done=done, total=total, note=note))
            case fact.Logged(of=of, lines=lines):
                self.emit(ev.SubStepLogged(**_attempt(of), lines=lines))

    def _counts(self, of: AttemptId) -> bool:
        """An outcome counts only for the generation and attempt in progress."""
        sub_step = self.state["phases"][of.phase]["sub_steps"][of.sub_step]
        return (
            sub_step["attempts"] == of.attempt
            and sub_step["status"] == "in_progress"
            and sub_step["generation"] == of.generation
        )

    def _late(self, happened: Fact) -> None:
        match happened:
            case fact.Completed(of=of, result=result, seconds=seconds):
                self.emit(ev.LateOutcome(**_attempt(of), outcome="completed", result=result, seconds=seconds))
            case fact.Failed(of=of, error=error, seconds=seconds):
                self.emit(ev.LateOutcome(**_attempt(of), outcome="failed", error=error, seconds=seconds))
            case fact.SkipRaised(of=of, reason=reason):
                self.emit(ev.LateOutcome(**_attempt(of), outcome="skipped", reason=reason))
            case _:
                self.unrecorded.append(happened)

    def _complete(self, done: fact.Completed) -> None:
        refused = {name: value for name, value in done.changed.items() if not self._may_write(done.of, name, value)}
        merged = {name: value for name, value in done.changed.items() if name not in refused}
        of = done.of
        if merged:
            self.emit(ev.ContextChanged(set=merged, phase=of.phase, sub_step=of.sub_step))
        self.emit(
            ev.SubStepCompleted(
                phase=of.phase,
                sub_step=of.sub_step,
                generation=of.generation,
                attempt=of.attempt,
                result=done.result,
                seconds=done.seconds,
                context_refused=refused or None,
            )
        )

    def _may_write(self, of: AttemptId, name: str, value: Any) -> bool:
        """A field written in this phase may be given another value only by its writer or by what depends on it."""
        writers = self.state["writers"].get(name)
        present = self.state["context"]
        if not writers or (name in present and encode(present[name]) == encode(value)):
            return True
        writer, version = max(writers.items(), key=lambda item: item[1])
        if writer == OPERATOR:
            started = sub_step_of(self.state, of.key)["started_version"]
            return started is None or version < started
        phase, _ = split_key(writer)
        return phase != of.phase or writer == of.key or self.shape.follows(of.key, writer)

    def _fail(self, of: AttemptId, error: fact.ErrorData, seconds: float, spread: float) -> None:
        self.emit(ev.SubStepFailed(**_attempt(of), error=error, seconds=seconds))
        retry = self.shape.sub_steps[of.key]["retry"]
        failures = sub_step_of(self.state, of.key)["failures"]
        if error["retryable"] and failures < retry["attempts"]:
            retry_at = later(self.now, retry_wait_s(retry, failures, spread))
            self.emit(ev.SubStepRetryScheduled(**_names(of), attempt=of.attempt + 1, retry_at=retry_at))

    def _interrupt(self, cause: Any, worker_id: str) -> None:
        for of in in_progress(self.state):
            retry_at = self._back_at(of) if cause == "owner died" else None
            self.emit(ev.SubStepInterrupted(**_attempt(of), cause=cause, worker_id=worker_id, retry_at=retry_at))
            if self.shape.sub_steps[of.key]["on_interrupt"] == "fail" and cause != "cancelled":
                self._fail(of, _INTERRUPTED, 0.0, 0.0)
        if cause == "handed back":
            self.emit(ev.JobReleased(reason=cause))

    def _back_at(self, of: AttemptId) -> str | None:
        """When a sub-step runs again whose owner died: at once the first time, later and later after that."""
        before = sub_step_of(self.state, of.key)["interruptions"]
        return later(self.now, min(2.0 ** (before - 1), BACK_OFF_S_MAX)) if before else None

    # --- what follows ------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Go on until something has to be waited for."""
        while self.state["status"] == "running" and not self.situation.stopping:
            if self.state["requested"] is not None:
                self._obey()
                return
            phase = current_phase(self.state)
            if phase is None:
                self.emit(ev.JobCompleted(warnings=self._warnings()))
            elif self._park(phase) or not self._advance_phase(phase):
                return

    def _obey(self) -> None:
        """Do what a person asked for once nothing is in progress; until then nothing new starts."""
        if in_progress(self.state):
            return
        who = self.state["requested_by"] or {"by": "engine"}
        pausing = self.state["requested"] == "pause"
        self.emit(ev.JobPaused(**who) if pausing else ev.JobCancelled(**who))

    def _advance_phase(self, phase: str) -> bool:
        """Do what the phase allows now; whether it ended."""
        if self.state["phases"][phase]["status"] == "pending":
            self.emit(ev.PhaseStarted(phase=phase))
        failure = self._start_what_can(phase)
        if failure is None:
            if self.state["phases"][phase]["unsettled"]:
                return False
            self.emit(ev.PhaseCompleted(phase=phase))
            return True
        if self.state["phases"][phase]["in_progress"] or self._has_begun_and_goes_on(phase):
            return False
        self._fail_phase(phase, failure)
        return True

    def _has_begun_and_goes_on(self, phase: str) -> bool:
        """Whether an attempt is to come of what had one; what only waits does not hold a failure up."""
        of_phase = self.state["phases"][phase]
        return any(of_phase["sub_steps"][name]["status"] != "waiting" for name in of_phase["suspended"])

    def _start_what_can(self, phase: str) -> Key | None:
        """Start and skip until nothing more follows; the failure, if any, because of which nothing new may start."""
        while True:
            self.questions = []
            self._end_waits(phase)
            failure = blocking_failure(self.state, self.shape, phase)
            if failure is not None or not self._settle_what_cannot_run(phase):
                unsettled = self.state["phases"][phase]["unsettled"]
                self._start_due(phase, restarts_only=failure is not None)
                if self.state["phases"][phase]["unsettled"] == unsettled:  # no wait was over as it began
                    return failure

    def _fail_phase(self, phase: str, failure: Key) -> None:
        failed = [key for key in self.shape.of_phase[phase] if sub_step_of(self.state, key)["status"] == "failed"]
        self.emit(ev.PhaseFailed(phase=phase, failed=failed))
        error = sub_step_of(self.state, failure)["error"] or {}
        self.emit(ev.JobFailed(error=error, phase=phase, sub_step=split_key(failure)[1]))

    def _park(self, phase: str) -> bool:
        """Stop for a person once nothing is in progress; whether the job is stopping for that reason."""
        cause = self._cause_to_park(phase)
        if cause is not None and not in_progress(self.state):
            reason, key, detail = cause
            name = split_key(key)[1]
            self.emit(ev.JobParked(reason=reason, detail=detail, phase=phase, sub_step=name))
        return cause is not None

    def _cause_to_park(self, phase: str) -> tuple[Any, Key, str] | None:
        for key, fields in self.state["refused"].items():
            return "context conflict", key, f"{key} wrote {', '.join(fields)}, which a sibling or a person had written"
        for key in in_order(self.shape, phase, self.state["phases"][phase]["suspended"]):
            sub_step = sub_step_of(self.state, key)
            if sub_step["status"] == "interrupted" and sub_step["reason"] not in (None, "commit unknown"):
                if sub_step["interruptions"] >= self.situation.interruptions_max:
                    return "crash loop", key, f"{key} was interrupted {sub_step['interruptions']} times"
                if self.shape.sub_steps[key]["on_interrupt"] == "hold":
                    return "held interruption", key, f"{key} was interrupted and its effect may have happened"
            if key in self.situation.stuck:
                return "stuck handler", key, f"{key} timed out and its handler does not end"
        return None

    def _settle_what_cannot_run(self, phase: str) -> bool:
        """Settle what is ready by its needs or its condition, and ask conditions; whether anything was settled."""
        ready = self.state["phases"][phase]["ready"]
        before = len(self.events)
        for key in [key_of(phase, name) for name in self.shape.gated[phase] if name in ready]:
            unmet = unmet_needs(self.state, self.shape, key)
            answer = self._answer(key)
            if unmet:
                self._skip(key, "unmet need", f"needs {', '.join(split_key(edge)[1] for edge in unmet)}")
            elif answer is None:
                self.questions.append(key)
            elif answer is not True:
                self._refuse(key, answer)
        return len(self.events) > before

    def _answer(self, key: Key) -> fact.Answer | None:
        """What the sub-step's condition says, None where it has to be asked."""
        if not self.shape.sub_steps[key]["when"] or sub_step_of(self.state, key)["when"]:
            return True
        return self.situation.answers.get(key)

    def _start_due(self, phase: str, *, restarts_only: bool) -> None:
        """Start what is due, in the order of declaration, as far as there is room."""
        of_phase = self.state["phases"][phase]
        names = [*of_phase["suspended"], *(() if restarts_only else of_phase["ready"])]
        if not names:
            return
        bound = self.shape.phases[phase].get("parallel", len(of_phase["sub_steps"]))
        for key in in_order(self.shape, phase, names):
            if len(self.state["phases"][phase]["in_progress"]) >= bound:
                return
            if self._is_due(key) and not (self._is_suspect(key) and self._a_suspect_runs(phase)):
                self._start(key)

    def _is_suspect(self, key: Key) -> bool:
        """Whether it may be what kills the process: suspects run one at a time, so that the others are cleared."""
        return sub_step_of(self.state, key)["interruptions"] >= SUSPECT_AFTER

    def _a_suspect_runs(self, phase: str) -> bool:
        return any(self._is_suspect(key_of(phase, name)) for name in self.state["phases"][phase]["in_progress"])

    def _is_due(self, key: Key) -> bool:
        sub_step = sub_step_of(self.state, key)
        return (
            sub_step["status"] != "waiting"
            and (sub_step["retry_at"] is None or sub_step["retry_at"] <= self.now)
            and key not in self.situation.occupied
            and self._answer(key) is True
        )

    def _start(self, key: Key) -> None:
        plan, sub_step = self.shape.sub_steps[key], sub_step_of(self.state, key)
        phase, name = split_key(key)
        if "wait" in plan:
            self._wait(key, plan["wait"])
            return
        self.emit(
            ev.SubStepStarted(
                phase=phase,
                sub_step=name,
                generation=sub_step["generation"],
                attempt=sub_step["attempts"] + 1,
                idempotency_key=idempotency_key(self.state["job_id"], key, sub_step["key_generation"]),
                needs=[*plan["after"], *plan["needs"]],
                when=True if plan["when"] else None,
            )
        )

    def _wait(self, key: Key, wait: WaitPlan) -> None:
        phase, name = split_key(key)
        until = None if wait["seconds"] is None else later(self.now, wait["seconds"])
        generation = sub_step_of(self.state, key)["generation"]
        waiting = ev.SubStepWaiting(
            phase=phase, sub_step=name, generation=generation, kind=wait["kind"], until=until, signal=wait["signal"]
        )
        self.emit(waiting)
        self._end_wait(key)

    def _end_waits(self, phase: str) -> None:
        """Complete what waited for a signal that came, or for a time that is over."""
        of_phase = self.state["phases"][phase]
        waiting = [name for name in of_phase["suspended"] if of_phase["sub_steps"][name]["wait"]]
        for key in in_order(self.shape, phase, waiting):
            self._end_wait(key)

    def _end_wait(self, key: Key) -> None:
        plan, sub_step = self.shape.sub_steps[key], sub_step_of(self.state, key)
        wait, sent = sub_step["wait"], []
        assert wait is not None, key
        if wait["signal"] is not None:
            sent = self.state["signals"].get(wait["signal"], [])
        is_over = wait["until"] is not None and wait["until"] <= self.now
        if not sent and not is_over:
            return
        phase, name = split_key(key)
        of = AttemptId(phase, name, sub_step["generation"], sub_step["attempts"] + 1)
        if sent or wait["signal"] is None or "default" in plan:
            result = sent[0]["payload"] if sent else plan.get("default")
            self.emit(ev.SubStepCompleted(**_attempt(of), result=result, seconds=0.0))
        else:
            self.emit(ev.SubStepFailed(**_attempt(of), error=_not_signalled(wait["signal"]), seconds=0.0))

    def _refuse(self, key: Key, answer: str | fact.ErrorData) -> None:
        """The condition said no, or raised."""
        if isinstance(answer, str):
            self._skip(key, "condition", answer)
            return
        phase, name = split_key(key)
        sub_step = sub_step_of(self.state, key)
        self.emit(
            ev.SubStepFailed(
                phase=phase,
                sub_step=name,
                generation=sub_step["generation"],
                attempt=sub_step["attempts"] + 1,
                error=answer,
                seconds=0.0,
            )
        )

    def _skip(self, key: Key, cause: Any, reason: str) -> None:
        phase, name = split_key(key)
        generation = sub_step_of(self.state, key)["generation"]
        self.emit(ev.SubStepSkipped(phase=phase, sub_step=name, generation=generation, cause=cause, reason=reason))

    def _warnings(self) -> list[str]:
        steps = ((key, sub_step_of(self.state, key)) for key in self.shape.sub_steps)
        failed = [(key, (step["error"] or {}).get("message", "")) for key, step in steps if step["status"] == "failed"]
        warnings = [f"{key} failed: {message[:WARNING_CHARS_MAX]}" for key, message in failed[:WARNINGS_MAX]]
        unnamed = len(failed) - len(warnings)
        return [*warnings, f"{unnamed} more failed"] if unnamed else warnings


def _not_signalled(name: str) -> fact.ErrorData:
    return {"type": "SignalTimeout", "message": f"no signal {name} came in time", "retryable": False}


_INTERRUPTED: fact.ErrorData = {
    "type": "Interrupted",
    "message": "the worker died or had to stop; the effect may have happened",
    "retryable": False,
}


def retry_wait_s(retry: RetryPlan, failures: int, spread: float) -> float:
    """Seconds between the `failures`-th failure and the next attempt."""
    exponent = min(failures - 1, 64)
    return min(retry["wait_s"] * retry["factor"] ** exponent, retry["wait_s_max"]) * (1 + retry["jitter"] * spread)


def _names(of: AttemptId) -> dict[str, Any]:
    return {"phase": of.phase, "sub_step": of.sub_step, "generation": of.generation}


def _attempt(of: AttemptId) -> dict[str, Any]:
    return {**_names(of), "attempt": of.attempt}
