"""Whether a job ends as it would have, wherever its worker is killed and another one resumes it.

The job runs undisturbed, twice: what differs then has nothing to do with crashes. Then it runs again for each place
where that run could have been killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from steplog.engine.definition import AnyDefinition
from steplog.engine.history import load
from steplog.engine.vault import vault_of
from steplog.eventstore.sealed import with_sealed
from steplog.projections.plan import Place
from steplog.projections.state import ENDED, STOPPED, State
from steplog.testing.boundaries import Boundaries, Boundary, name_of
from steplog.testing.loop import Deadlock
from steplog.testing.memory_of_modules import MemoryOfModules
from steplog.testing.outcomes import Run, broken_promises, differences
from steplog.testing.process import Fate, Process, Surroundings
from steplog.testing.signals import SENT_BY, send_awaited

Effects = Sequence[object] | Callable[[], Iterable[object]]
"""Everything that what stands for the outside world has done so far."""


class CrashSafety:
    """The check of one workflow with one input."""

    def __init__(
        self,
        around: Surroundings,
        definition: AnyDefinition,
        input: Any,
        effects: Effects | None,
        may_differ: Collection[str],
        signals: Mapping[str, Any],
    ) -> None:
        self._around = around
        self._definition = definition
        self._input = input
        self._effects: Effects = () if effects is None else effects
        self._may_differ = may_differ
        self._signals = signals
        self._memory = MemoryOfModules(definition, effects)

    def check(self, only: str | None) -> State:
        """The state of the undisturbed job. Raises AssertionError for the first place where a crash does harm."""
        try:
            return self._check(only)
        finally:
            self._memory.forget()

    def _check(self, only: str | None) -> State:
        boundaries = Boundaries()
        undisturbed = self._run(boundaries)
        self._compare_undisturbed(self._run(Fate()), undisturbed)
        wanted = [boundary for boundary in boundaries.found if only in (None, str(boundary))]
        if not wanted:
            raise ValueError(f"no boundary {only!r}: there are {', '.join(map(str, boundaries.found))}")
        for boundary in wanted:
            run = self._run_killed(boundary)
            if found := [*broken_promises(run, undisturbed), *differences(run, undisturbed, self._may_differ)]:
                raise AssertionError(self._story(boundary, run, found))
        return self._state(undisturbed.state["job_id"])

    def _compare_undisturbed(self, again: Run, first: Run) -> None:
        if found := [*differences(again, first, self._may_differ)]:
            raise AssertionError(
                f"two undisturbed runs of workflow {self._definition.name} differ, so nothing can be said of crashes:\n"
                f"{_listed(found)}\nwhat rightly differs from run to run is named by may_differ=, "
                "a result as 'phase/sub_step' and a field of the context as 'context.field'"
            )

    # --- run ---------------------------------------------------------------------------------------------------------

    def _run_killed(self, boundary: Boundary) -> Run:
        try:
            return self._run(Boundaries(boundary))
        except Deadlock as stuck:
            raise AssertionError(f"{self._headline(boundary)}\n{_listed([str(stuck)])}\n{_again(boundary)}") from stuck

    def _run(self, fate: Fate) -> Run:
        before = self._happened()
        lives: list[Process] = []
        try:
            job_id = self._life(lives, fate).create_and_run(self._input)
            at_crash = self._state(job_id) if lives[0].is_dead else None
            if at_crash is not None and at_crash["status"] not in ENDED | STOPPED:
                self._life(lives, Fate()).claim_and_run(job_id)
            while _is_held(self._state(job_id)) or send_awaited(self._around, job_id, self._signals):
                self._life(lives, Fate()).claim_and_run(job_id, resume_by=SENT_BY)
            return Run(
                self._comparable(self._state(job_id)),
                at_crash,
                sum((life.calls for life in lives), Counter[Place]()),
                sum((life.calls for life in lives[1:]), Counter[Place]()),
                self._happened() - before,
            )
        finally:
            for life in lives:
                life.bury()

    def _life(self, lives: list[Process], fate: Fate) -> Process:
        self._memory.forget()
        lives.append(Process(self._around, self._definition, fate))
        return lives[-1]

    def _happened(self) -> Counter[str]:
        return Counter(map(repr, self._effects() if callable(self._effects) else self._effects))

    def _state(self, job_id: str) -> State:
        return load(self._around.store, job_id).state

    def _comparable(self, state: State) -> State:
        """Each job seals with a key of its own: what is the same in two jobs is told by a hash of what was sealed."""
        vault = vault_of(self._around.store, state["job_id"], self._definition)
        hashed: State = with_sealed(state, lambda sealed: sha256(vault.open(sealed).encode()).hexdigest())
        return hashed

    # --- tell --------------------------------------------------------------------------------------------------------

    def _story(self, boundary: Boundary, run: Run, found: list[str]) -> str:
        crash = run.at_crash["version"] if run.at_crash else 0
        lines = [
            self._headline(boundary),
            _listed(found),
            f"the log of job {run.state['job_id']}:",
        ]
        for event in self._around.store.read(run.state["job_id"]):
            lines.append(f"  {event.version:>4} {name_of(event.type, event.data)}")
            if event.version == crash:
                lines.append(f"       ✗ killed {boundary}")
        return "\n".join([*lines, _again(boundary)])

    def _headline(self, boundary: Boundary) -> str:
        return f"workflow {self._definition.name} is not crash-safe. Killed {boundary}, and resumed by another worker:"


def _again(boundary: Boundary) -> str:
    return f"to see this one alone: assert_crash_safe(..., only={str(boundary)!r})"


def _is_held(state: State) -> bool:
    """Whether it waits for a person because a sub-step was interrupted that says so."""
    return state["status"] == "parked" and (state["reason"] or "").startswith("held interruption")


def _listed(found: list[str]) -> str:
    return "\n".join(f"  - {each}" for each in found)
