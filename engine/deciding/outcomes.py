"""What became of attempts, as events: outcomes in time and late, retries, interruptions, context conflicts. Pure."""

from __future__ import annotations

from typing import Any

from steplog.engine import facts as fact
from steplog.engine.deciding import undoing
from steplog.engine.deciding.draft import Draft, attempt_of, error_of, in_progress, names_of, state_of
from steplog.engine.facts import AttemptId, Fact
from steplog.eventstore import events as ev
from steplog.eventstore.clock import later
from steplog.eventstore.codec import encode
from steplog.projections.context_rules import OPERATOR
from steplog.projections.plan import key_of_place, split_key
from steplog.projections.readiness import sub_step_of

BACK_OFF_S_MAX = 60.0
"""The longest wait before a sub-step runs again whose owner died."""

_INTERRUPTED = error_of("Interrupted", "the worker died or had to stop; the effect may have happened")


def take(draft: Draft, happened: Fact) -> None:
    """Record what happened, as far as the log has to tell of it."""
    match happened:
        case fact.Interrupted(cause=cause, worker_id=worker_id):
            _interrupt(draft, cause, worker_id)
        case _ if happened.of.undoing:
            undoing.take(draft, happened)
        case _ if not _counts(draft, happened.of):
            _late(draft, happened)
        case fact.Completed():
            _complete(draft, happened)
        case fact.Failed(of=of):
            _fail(draft, of, happened.error, happened.seconds, happened.spread)
        case fact.SkipRaised(of=of, reason=reason):
            draft.emit(ev.SubStepSkipped(**names_of(of), attempt=of.attempt, cause="raised", reason=reason))
        case fact.CheckpointReached(of=of, cursor=cursor, changed=changed):
            kept = {"set": changed} if changed else {}
            draft.emit(ev.SubStepCheckpointed(**attempt_of(of), cursor=cursor, draft=kept))
        case fact.CommitUnknown(of=of, worker_id=worker_id):
            draft.emit(ev.SubStepInterrupted(**attempt_of(of), cause="commit unknown", worker_id=worker_id))
        case fact.Progressed(of=of, done=done, total=total, note=note):
            draft.emit(ev.SubStepProgressed(**attempt_of(of), done=done, total=total, note=note))
        case _:
            draft.emit(ev.SubStepLogged(**attempt_of(happened.of), lines=happened.lines))


def _counts(draft: Draft, of: AttemptId) -> bool:
    """An outcome counts only for the generation and attempt in progress."""
    group = sub_step_of(draft.state, of.key)
    if of.item is not None and (group["items"] is None or of.item not in group["items"]["in_progress"]):
        return False
    sub_step = state_of(draft.state, of)
    return (
        sub_step["attempts"] == of.attempt
        and sub_step["status"] == "in_progress"
        and sub_step["generation"] == of.generation
    )


def _late(draft: Draft, happened: Fact) -> None:
    """Tell of an effect that may have happened; of what was rolled back there is nothing to tell."""
    match happened:
        case fact.Failed(undone=True) | fact.SkipRaised(undone=True):
            draft.unrecorded.append(happened)
        case fact.Completed(of=of, result=result, seconds=seconds):
            draft.emit(ev.LateOutcome(**attempt_of(of), outcome="completed", result=result, seconds=seconds))
        case fact.Failed(of=of, error=error, seconds=seconds):
            draft.emit(ev.LateOutcome(**attempt_of(of), outcome="failed", error=error, seconds=seconds))
        case fact.SkipRaised(of=of, reason=reason):
            draft.emit(ev.LateOutcome(**attempt_of(of), outcome="skipped", reason=reason))
        case _:
            draft.unrecorded.append(happened)


def _complete(draft: Draft, done: fact.Completed) -> None:
    of, changed = done.of, done.changed
    refused = {name: value for name, value in changed.items() if not _may_write(draft, of, name, value)}
    merged = {name: value for name, value in changed.items() if name not in refused} if refused else changed
    if merged:
        draft.emit(ev.ContextChanged(set=merged, phase=of.phase, sub_step=of.sub_step, item=of.item))
    draft.emit(
        ev.SubStepCompleted(
            **attempt_of(of),
            result=done.result,
            seconds=done.seconds,
            context_refused=refused or None,
        )
    )


def _may_write(draft: Draft, of: AttemptId, name: str, value: Any) -> bool:
    """A field written in this phase may be given another value only by its writer or by what depends on it."""
    writers = draft.state["writers"].get(name)
    present = draft.state["context"]
    if not writers or (name in present and encode(present[name]) == encode(value)):
        return True
    writer, version = max(writers.items(), key=lambda item: item[1])
    if writer == OPERATOR:
        started = state_of(draft.state, of)["started_version"]
        return started is None or version < started
    phase, _ = split_key(writer)
    return phase != of.phase or writer == of.place or draft.shape.follows(of.key, key_of_place(writer))


def _fail(draft: Draft, of: AttemptId, error: fact.ErrorData, seconds: float, spread: float) -> None:
    draft.emit(ev.SubStepFailed(**attempt_of(of), error=error, seconds=seconds))
    retry = draft.shape.sub_steps[of.key]["retry"]
    failures, deadline = state_of(draft.state, of)["failures"], sub_step_of(draft.state, of.key)["deadline_at"]
    if error["retryable"] and failures < retry["attempts"]:
        retry_at = later(draft.now, undoing.retry_wait_s(retry, failures, spread))
        if deadline is not None and deadline <= retry_at:
            return
        draft.emit(ev.SubStepRetryScheduled(**names_of(of), attempt=of.attempt + 1, retry_at=retry_at))


def _interrupt(draft: Draft, cause: Any, worker_id: str) -> None:
    for of in in_progress(draft.state):
        if of.undoing:
            undoing.interrupt(draft, of, cause, worker_id)
            continue
        retry_at = _back_at(draft, of) if cause == "owner died" else None
        draft.emit(ev.SubStepInterrupted(**attempt_of(of), cause=cause, worker_id=worker_id, retry_at=retry_at))
        if draft.shape.sub_steps[of.key]["on_interrupt"] == "fail" and cause != "cancelled":
            _fail(draft, of, _INTERRUPTED, 0.0, 0.0)
    if cause == "handed back":
        draft.emit(ev.JobReleased(reason=cause))


def _back_at(draft: Draft, of: AttemptId) -> str | None:
    """When a sub-step runs again whose owner died: at once the first time, later and later after that."""
    before = state_of(draft.state, of)["interruptions"]
    return later(draft.now, min(2.0 ** min(before - 1, 32), BACK_OFF_S_MAX)) if before else None
