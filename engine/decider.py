"""The decider: from a job's state and what has happened, the events that follow. Pure: the engine's specification.

It works on the state its own events lead to, so one call may complete a sub-step, its phase, and start the next: all
of it is one append.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from steplog.engine import facts as fact
from steplog.engine.deciding import undoing
from steplog.engine.deciding.deadlines import deadlines_of, exceeded, fail_late, job_is_late
from steplog.engine.deciding.draft import Draft, in_progress
from steplog.engine.deciding.fan_outs import due_items, expand, settle
from steplog.engine.deciding.keys import idempotency_key
from steplog.engine.deciding.outcomes import take
from steplog.engine.deciding.suspects import a_suspect_runs, is_suspect
from steplog.engine.deciding.waits import begin_wait, end_waits, take_signals
from steplog.engine.facts import Fact, Situation
from steplog.eventstore import events as ev
from steplog.eventstore.clock import seconds_between
from steplog.projections.fan_out import (
    attempts_in,
    attempts_of,
    expanded_in,
    is_expanded,
    item_of,
    next_item_due,
    suspended_in,
    suspended_of,
)
from steplog.projections.job_rules import WAITS
from steplog.projections.plan import Key, Shape, key_of, key_of_place, place_of, shown_place, split_key
from steplog.projections.readiness import blocking_failure, in_order, sub_step_of, unmet_needs
from steplog.projections.state import SETTLED, PhaseState, State, SubStepState, current_phase
from steplog.projections.undoing import next_undo_due

__all__ = ["Decision", "decide", "idempotency_key", "in_progress", "next_due"]

WARNINGS_MAX = 100
"""How many tolerated failures a completed job names; the rest it counts."""
WARNING_CHARS_MAX = 500


class Decision(NamedTuple):
    """Events to append at the instant that was given, the state they lead to, and conditions to ask first."""

    events: Sequence[ev.EventData]
    state: State
    questions: Sequence[Key]
    """Sub-steps that could start but for their `when=`: decide again with answers, before appending."""
    unlisted: Sequence[Key]
    """Fan-outs whose items have to be listed: decide again with them, before appending."""
    unfinished: bool
    """Whether more follows at once from what is appended: it would have been too much for one append."""
    unrecorded: Sequence[Fact]
    """Facts of attempts that were settled otherwise, of which no event tells."""


def decide(state: State, shape: Shape, happened: Iterable[Fact], now: str, situation: Situation) -> Decision:
    """What follows from the facts. `now` is not before the state's last event."""
    deciding = _Deciding(state, shape, now, situation)
    for each in happened:
        take(deciding, each)
    deciding.advance()
    if situation.release_after_s is not None:
        deciding.give_back_if_idle(situation.release_after_s)
    return Decision(
        deciding.events,
        deciding.state,
        deciding.questions,
        deciding.unlisted,
        deciding.unfinished,
        deciding.unrecorded,
    )


def next_due(state: State, decided_at: str) -> str | None:
    """The earliest instant at which time alone lets something start, or fail, that did not at the last decision.

    What was due then and has not started waits for something else: for room, or for a thread to end.
    """
    if state["undoing"] and state["status"] == "compensating":
        due_at = next_undo_due(state, Shape.of(state["plan"]))
        return due_at if due_at and due_at > decided_at else None
    phase = current_phase(state)
    if phase is None or state["status"] != "running":
        return None
    of_phase = state["phases"][phase]
    due = (
        *(_due_at(of_phase["sub_steps"][name]) for name in of_phase["suspended"]),
        *(instant for items in expanded_in(of_phase) for instant in next_item_due(items)),
        *deadlines_of(state, phase),
    )
    return min((instant for instant in due if instant and instant > decided_at), default=None)


def _due_at(sub_step: SubStepState) -> str | None:
    """When time alone moves a sub-step that is suspended."""
    return sub_step["wait"]["until"] if sub_step["wait"] else sub_step["retry_at"]


class _Deciding(Draft):
    """What follows from the state once the facts are in it."""

    def advance(self) -> None:
        """Go on until something has to be waited for."""
        if self.state["undoing"] and self.state["status"] == "compensating" and not self.situation.stopping:
            undoing.go_on(self)
        while self.state["status"] == "running" and not self.situation.stopping:
            if self.state["requested"] is not None:
                self._obey()
                return
            phase = current_phase(self.state)
            if phase is None:
                self.emit(ev.JobCompleted(warnings=self._warnings()))
            elif self._gives_up_late(phase) or self._park(phase) or not self._advance_phase(phase):
                return

    def give_back_if_idle(self, release_after_s: float) -> None:
        """Give the job back where only a time far off, or a signal, moves it: meanwhile it holds nothing."""
        state, situation = self.state, self.situation
        if state["status"] != "running" or self._asks or situation.stopping or in_progress(state):
            return
        if state["requested"] is not None or situation.occupied or situation.suspects_wait:
            return
        due = next_due(state, self.now)
        if due is None or seconds_between(self.now, due) > release_after_s:
            self.emit(ev.JobReleased(reason=WAITS, wake_at=due))

    @property
    def _asks(self) -> bool:
        """Whether there is something to do at once, with an answer or without."""
        return bool(self.questions or self.unlisted or self.unfinished)

    def _obey(self) -> None:
        """Do what a person asked for once nothing is in progress; until then nothing new starts."""
        if in_progress(self.state):
            return
        who = self.state["requested_by"] or {"by": "engine"}
        if self.state["requested"] == "pause":
            self.emit(ev.JobPaused(**who))
        elif not undoing.begin(self, "cancelled"):
            self.emit(ev.JobCancelled(**who))

    def _gives_up_late(self, phase: str) -> bool:
        """Fail a job that has had its time once nothing is in progress; whether it has."""
        of_phase = self.state["phases"][phase]
        if not job_is_late(self.state, self.now) or not of_phase["unsettled"]:
            return False
        if not in_progress(self.state):
            if of_phase["status"] == "pending":
                self.emit(ev.PhaseStarted(phase=phase))
            unsettled = [name for name, step in of_phase["sub_steps"].items() if step["status"] not in SETTLED]
            first = in_order(self.shape, phase, of_phase["suspended"] or unsettled)[0]
            self._fail_phase(phase, first, exceeded("the job", self.state["plan"].get("deadline_s", 0.0)))
        return True

    def _advance_phase(self, phase: str) -> bool:
        """Do what the phase allows now; whether it ended."""
        if self.state["phases"][phase]["status"] == "pending":
            self.emit(ev.PhaseStarted(phase=phase))
        if self.state["deadlines"]:
            take_signals(self, phase)
            fail_late(self, phase)
        failure = self._start_what_can(phase)
        if failure is None:
            if self.state["phases"][phase]["unsettled"]:
                return False
            self.emit(ev.PhaseCompleted(phase=phase))
            return True
        if attempts_in(self.state["phases"][phase]) or self._has_begun_and_goes_on(phase):
            return False
        self._fail_phase(phase, failure, sub_step_of(self.state, failure)["error"] or {})
        return True

    def _has_begun_and_goes_on(self, phase: str) -> bool:
        """Whether an attempt is to come of what had one; what only waits does not hold a failure up."""
        of_phase = self.state["phases"][phase]
        return any(of_phase["sub_steps"][name]["status"] != "waiting" for name in of_phase["suspended"]) or any(
            items["suspended"] for items in expanded_in(of_phase)
        )

    def _start_what_can(self, phase: str) -> Key | None:
        """Start and skip until nothing more follows; the failure, if any, because of which nothing new may start."""
        while True:
            self.questions, self.unlisted = [], []
            if self.shape.waits[phase]:
                end_waits(self, phase)
            failure = blocking_failure(self.state, self.shape, phase)
            if failure is None and self._settle_what_cannot_run(phase):
                continue
            if self.shape.waits[phase] and self._begin_waits(phase, restarts_only=failure is not None):
                continue
            if self.shape.fan_outs[phase] and self._move_fan_outs(phase, restarts_only=failure is not None):
                continue
            self._start_due(phase, restarts_only=failure is not None)
            return failure

    def _fail_phase(self, phase: str, failure: Key, error: fact.ErrorData) -> None:
        failed = [key for key in self.shape.of_phase[phase] if sub_step_of(self.state, key)["status"] == "failed"]
        self.emit(ev.PhaseFailed(phase=phase, failed=failed))
        if not undoing.begin(self, "failed"):
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
        for place, fields in self.state["refused"].items():
            wrote = f"{shown_place(place)} wrote {', '.join(fields)}, which a sibling or a person had written"
            return "context conflict", key_of_place(place), wrote
        for key in in_order(self.shape, phase, suspended_in(self.state["phases"][phase])):
            for item, sub_step in suspended_of(sub_step_of(self.state, key)):
                place = place_of(*split_key(key), item)
                if sub_step["status"] == "interrupted" and sub_step["reason"] not in (None, "commit unknown"):
                    if sub_step["interruptions"] >= self.situation.interruptions_max:
                        return (
                            "crash loop",
                            key,
                            f"{shown_place(place)} was interrupted {sub_step['interruptions']} times",
                        )
                    if self.shape.sub_steps[key]["on_interrupt"] == "hold":
                        return (
                            "held interruption",
                            key,
                            f"{shown_place(place)} was interrupted and its effect may have happened",
                        )
                if place in self.situation.stuck:
                    return "stuck handler", key, f"{shown_place(place)} timed out and its handler does not end"
        return None

    def _settle_what_cannot_run(self, phase: str) -> bool:
        """Settle what is ready by its needs or its condition, and ask conditions; whether anything was settled."""
        if not self.shape.gated[phase]:
            return False
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
        if self.shape.fan_outs[phase]:
            names += [name for name in of_phase["in_progress"] if is_expanded(of_phase["sub_steps"][name])]
        if not names:
            return
        bound = self.shape.phases[phase].get("parallel")
        for key in in_order(self.shape, phase, names):
            if not self._has_room(phase, bound):
                return
            if sub_step_of(self.state, key)["items"] is not None:
                self._start_items(key, bound, restarts_only=restarts_only)
            elif key not in self.shape.fan_outs[phase] and self._is_due(key) and self._is_clear(key):
                self._start(key)

    def _has_room(self, phase: str, bound: int | None) -> bool:
        return bound is None or attempts_in(self.state["phases"][phase]) < bound

    def _start_items(self, key: Key, bound: int | None, *, restarts_only: bool) -> None:
        """Start items of a fan-out that is expanded, as far as there is room in it and in its phase."""
        phase = split_key(key)[0]
        limit = self.shape.fan_outs[phase][key]["parallel"]
        for item in due_items(self, key, restarts_only=restarts_only):
            if not self._has_room(phase, bound) or attempts_of(sub_step_of(self.state, key)) >= limit:
                return
            if self._is_clear(key, item):
                self._start(key, item)

    def _move_fan_outs(self, phase: str, *, restarts_only: bool) -> bool:
        """Ask for the items of fan-outs, record them, and settle what has none left; whether anything was moved."""
        of_phase = self.state["phases"][phase]
        moved = False
        for key in self.shape.fan_outs[phase]:
            sub_step = sub_step_of(self.state, key)
            if is_expanded(sub_step) and sub_step["status"] == "in_progress":
                moved |= settle(self, key)
            elif not restarts_only and self._may_expand(of_phase, key):
                moved |= self._expand(key)
        return moved

    def _may_expand(self, of_phase: PhaseState, key: Key) -> bool:
        name = split_key(key)[1]
        return name in of_phase["in_progress"] or (name in of_phase["ready"] and self._answer(key) is True)

    def _expand(self, key: Key) -> bool:
        listed = self.situation.items.get(key)
        if listed is None:
            self.unlisted.append(key)
        if listed is None or self.unfinished:
            return False
        expand(self, key, listed)
        sub_step = sub_step_of(self.state, key)
        self.unfinished = sub_step["status"] == "in_progress" and not is_expanded(sub_step)
        return not self.unfinished

    def _begin_waits(self, phase: str, *, restarts_only: bool) -> bool:
        """Let what only waits begin to, whether there is room or not; whether anything did."""
        ready = self.state["phases"][phase]["ready"]
        may_begin = [key for key in self.shape.waits[phase] if not restarts_only or split_key(key)[1] not in ready]
        due = [key for key in may_begin if self._may_start(key) and self._is_due(key)]
        for key in due:
            begin_wait(self, key)
        return bool(due)

    def _may_start(self, key: Key) -> bool:
        """Whether its edges are settled and it has no outcome."""
        phase, name = split_key(key)
        of_phase = self.state["phases"][phase]
        return name in of_phase["ready"] or name in of_phase["suspended"]

    def _is_clear(self, key: Key, item: str | None = None) -> bool:
        """Suspects run one at a time: in the job, and in its worker."""
        if not is_suspect(self.state, key, item):
            return True
        return not (self.situation.suspects_wait or a_suspect_runs(self.state))

    def _is_due(self, key: Key) -> bool:
        sub_step = sub_step_of(self.state, key)
        return (
            sub_step["status"] != "waiting"
            and (sub_step["retry_at"] is None or sub_step["retry_at"] <= self.now)
            and key not in self.situation.occupied
            and self._answer(key) is True
        )

    def _start(self, key: Key, item: str | None = None) -> None:
        plan, sub_step = self.shape.sub_steps[key], sub_step_of(self.state, key)
        if item is not None:
            sub_step = item_of(sub_step, item)
        phase, name = split_key(key)
        self.emit(
            ev.SubStepStarted(
                phase=phase,
                sub_step=name,
                item=item,
                generation=sub_step["generation"],
                attempt=sub_step["attempts"] + 1,
                idempotency_key=idempotency_key(self.state["job_id"], key, sub_step["key_generation"], item),
                needs=[] if item is not None else [*plan["after"], *plan["needs"]],
                when=True if plan["when"] and item is None else None,
            )
        )

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
