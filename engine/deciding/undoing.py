"""Compensation: what a job that failed or is cancelled has done is undone, one sub-step at a time. Pure.

The last to complete is the first to be undone; the next one begins when that is done. A compensation has attempts,
waits and an idempotency key of its own. One that fails for good parks the job: a person must see what is not undone.
"""

from __future__ import annotations

from typing import Any

from steplog.engine import facts as fact
from steplog.engine.deciding.draft import Draft, attempt_of, error_of
from steplog.engine.deciding.keys import idempotency_key
from steplog.engine.facts import AttemptId, ErrorData, Fact
from steplog.eventstore import events as ev
from steplog.eventstore.clock import later
from steplog.projections.plan import Key, RetryPlan, split_key
from steplog.projections.readiness import blocking_failure, sub_step_of
from steplog.projections.state import SETTLED, CompensationState
from steplog.projections.undoing import is_undone_when, to_undo

UNDONE = "\ncompensation"
"""What stands for the item in the idempotency key of a compensation; no item is called so."""


def begin(draft: Draft, because: str) -> bool:
    """Begin to undo, if the workflow asks for it and anything is to be undone; whether it is so."""
    if not is_undone_when(draft.state, because):
        return False
    _start(draft, to_undo(draft.state, draft.shape)[0])
    return True


def go_on(draft: Draft) -> None:
    """Undo what comes next; once nothing is left, the job ends as it would have."""
    while keys := to_undo(draft.state, draft.shape):
        key = keys[0]
        compensation = sub_step_of(draft.state, key)["compensation"]
        if compensation is not None and not _is_due(draft, key, compensation):
            return
        _start(draft, key)
    _end(draft)


def _is_due(draft: Draft, key: Key, compensation: CompensationState) -> bool:
    if compensation["status"] == "failed":
        phase, name = split_key(key)
        detail = f"{key} is not undone: {(compensation['error'] or {}).get('message')}"
        draft.emit(ev.JobParked(reason="compensation failed", detail=detail, phase=phase, sub_step=name))
        return False
    if compensation["status"] == "in_progress" or _place(draft, key) in draft.situation.occupied:
        return False
    if compensation["interruptions"] >= draft.situation.interruptions_max:
        phase, name = split_key(key)
        detail = f"the compensation of {key} was interrupted {compensation['interruptions']} times"
        draft.emit(ev.JobParked(reason="crash loop", detail=detail, phase=phase, sub_step=name))
        return False
    return compensation["retry_at"] is None or compensation["retry_at"] <= draft.now


def _place(draft: Draft, key: Key) -> str:
    return AttemptId(*split_key(key), 1, 1, undoing=True).place


def _start(draft: Draft, key: Key) -> None:
    phase, name = split_key(key)
    sub_step = sub_step_of(draft.state, key)
    compensation = sub_step["compensation"]
    draft.emit(
        ev.CompensationStarted(
            phase=phase,
            sub_step=name,
            generation=sub_step["generation"],
            attempt=(compensation["attempts"] if compensation else 0) + 1,
            idempotency_key=idempotency_key(draft.state["job_id"], key, sub_step["key_generation"], UNDONE),
        )
    )


def _end(draft: Draft) -> None:
    undoing = draft.state["undoing"]
    assert undoing is not None
    if undoing["because"] == "cancelled":
        draft.emit(ev.JobCancelled(by=undoing["by"] or "engine", reason=undoing["reason"]))
        return
    phase = next(name for name in draft.shape.phases if draft.state["phases"][name]["status"] == "failed")
    failure = blocking_failure(draft.state, draft.shape, phase)
    error = sub_step_of(draft.state, failure)["error"] if failure else None
    late = error_of("DeadlineExceeded", "the job did not end within its deadline")
    unsettled = (key for key in draft.shape.of_phase[phase] if sub_step_of(draft.state, key)["status"] not in SETTLED)
    name = split_key(failure or next(unsettled))[1]
    draft.emit(ev.JobFailed(error=error or late, phase=phase, sub_step=name))


# --- what became of attempts -----------------------------------------------------------------------------------------


def take(draft: Draft, happened: Fact) -> None:
    """Record what became of a compensation; what it says on its way is not kept."""
    match happened:
        case fact.Completed(of=of, seconds=seconds) if _counts(draft, of):
            draft.emit(ev.CompensationCompleted(**attempt_of(of), seconds=seconds))
        case fact.SkipRaised(of=of) if _counts(draft, of):
            draft.emit(ev.CompensationCompleted(**attempt_of(of), seconds=0.0))
        case fact.Failed(of=of) if _counts(draft, of):
            retry_at = _retry_at(draft, of, happened.error, happened.spread)
            failed = ev.CompensationFailed(
                **attempt_of(of), error=happened.error, seconds=happened.seconds, retry_at=retry_at
            )
            draft.emit(failed)
        case fact.CommitUnknown(of=of, worker_id=worker_id) if _counts(draft, of):
            interrupt(draft, of, "commit unknown", worker_id)
        case _:
            draft.unrecorded.append(happened)


def interrupt(draft: Draft, of: AttemptId, cause: Any, worker_id: str) -> None:
    """Its owner is gone: it runs again, under the same key."""
    draft.emit(ev.CompensationInterrupted(**attempt_of(of), cause=cause, worker_id=worker_id))


def _counts(draft: Draft, of: AttemptId) -> bool:
    compensation = sub_step_of(draft.state, of.key)["compensation"]
    return (
        compensation is not None and compensation["status"] == "in_progress" and compensation["attempts"] == of.attempt
    )


def _retry_at(draft: Draft, of: AttemptId, error: ErrorData, spread: float) -> str | None:
    plan, compensation = (
        draft.shape.sub_steps[of.key].get("compensate"),
        sub_step_of(draft.state, of.key)["compensation"],
    )
    assert plan is not None
    assert compensation is not None
    failures = compensation["failures"] + 1
    if not error["retryable"] or failures >= plan["retry"]["attempts"]:
        return None
    return later(draft.now, retry_wait_s(plan["retry"], failures, spread))


def retry_wait_s(retry: RetryPlan, failures: int, spread: float) -> float:
    """Seconds between the `failures`-th failure and the next attempt."""
    try:
        wait_s = min(retry["wait_s"] * retry["factor"] ** (failures - 1), retry["wait_s_max"])
    except OverflowError:  # more than any number: waits only grow
        wait_s = retry["wait_s_max"] if retry["wait_s"] else 0.0
    return wait_s * (1 + retry["jitter"] * spread)
