"""Sub-steps that may be what kills their owner run one at a time, so that all but one are cleared. Pure.

Whatever ran when an owner died counts a death, the cause and its neighbours alike; the next death counts for the cause.
"""

from __future__ import annotations

from collections.abc import Iterable

from steplog.projections.plan import Key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import PhaseState, State, current_phase

SUSPECT_AFTER = 2
"""Interruptions of a sub-step by its owner's death after which it may be what kills its owner."""


def is_suspect(state: State, key: Key) -> bool:
    """Whether it may be what kills the process."""
    return sub_step_of(state, key)["interruptions"] >= SUSPECT_AFTER


def a_suspect_waits(state: State) -> bool:
    """Whether one is to run again."""
    phase = current_phase(state)
    return phase is not None and _any(state["phases"][phase], state["phases"][phase]["suspended"])


def a_suspect_runs(state: State) -> bool:
    """Whether one is in progress."""
    phase = current_phase(state)
    return phase is not None and _any(state["phases"][phase], state["phases"][phase]["in_progress"])


def _any(phase: PhaseState, names: Iterable[str]) -> bool:
    return any(phase["sub_steps"][name]["interruptions"] >= SUSPECT_AFTER for name in names)
