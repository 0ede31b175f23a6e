"""Deadlines: what is late, and when the next thing will be. Pure.

A job's counts from its creation, or from when a person let it go on; a sub-step's from its first start, over all its
attempts and the waits between them. Both are instants in the state, so that no crash moves them.
"""

from __future__ import annotations

from collections.abc import Iterator

from steplog.engine.deciding.draft import Draft, attempt_of, error_of
from steplog.engine.facts import AttemptId, ErrorData
from steplog.eventstore import events as ev
from steplog.eventstore.clock import seconds_between
from steplog.projections.plan import Key, key_of, split_key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State


def job_is_late(state: State, now: str) -> bool:
    """Whether the job has had its time."""
    return state["deadline_at"] is not None and state["deadline_at"] <= now


def deadlines_of(state: State, phase: str) -> Iterator[str]:
    """When something of the phase, or the job itself, will be late."""
    if state["deadline_at"] is not None:
        yield state["deadline_at"]
    yield from (deadline for _, deadline in _open_deadlines(state, phase))


def _open_deadlines(state: State, phase: str) -> Iterator[tuple[Key, str]]:
    if not state["deadlines"]:
        return
    of_phase = state["phases"][phase]
    for name in (*of_phase["in_progress"], *of_phase["suspended"]):
        deadline = of_phase["sub_steps"][name]["deadline_at"]
        if deadline is not None:
            yield key_of(phase, name), deadline


def fail_late(draft: Draft, phase: str) -> None:
    """Fail the sub-steps of the phase that have had their time; where a handler still runs, it is told to stop."""
    for key, deadline in list(_open_deadlines(draft.state, phase)):
        if deadline <= draft.now:
            sub_step = sub_step_of(draft.state, key)
            of = AttemptId(*split_key(key), sub_step["generation"], max(1, sub_step["attempts"]))
            seconds = seconds_between(sub_step["started_at"] or draft.now, draft.now)
            error = exceeded(key, draft.state["deadlines"][key])
            draft.emit(ev.SubStepFailed(**attempt_of(of), error=error, seconds=seconds))


def exceeded(what: str, seconds: float) -> ErrorData:
    """The error of what is late."""
    return error_of("DeadlineExceeded", f"{what} did not end within its deadline of {seconds:g} s")
