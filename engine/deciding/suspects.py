"""Sub-steps that may be what kills their owner run one at a time, so that all but one are cleared. Pure.

Whatever ran when an owner died counts a death, the cause and its neighbours alike; the next death counts for the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from steplog.projections.fan_out import Part, is_active, item_of, running_of, suspended_in, suspended_of
from steplog.projections.plan import Key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import PhaseState, State, SubStepState, current_phase

SUSPECT_AFTER = 2
"""Interruptions of a sub-step by its owner's death after which it may be what kills its owner."""


def is_suspect(state: State, key: Key, item: str | None = None) -> bool:
    """Whether it may be what kills the process."""
    sub_step = sub_step_of(state, key)
    if item is not None:
        return is_active(sub_step, item) and item_of(sub_step, item)["interruptions"] >= SUSPECT_AFTER
    return sub_step["interruptions"] >= SUSPECT_AFTER


def a_suspect_waits(state: State) -> bool:
    """Whether one is to run again."""
    phase = current_phase(state)
    return phase is not None and _any(state["phases"][phase], suspended_in(state["phases"][phase]), suspended_of)


def a_suspect_runs(state: State) -> bool:
    """Whether one is in progress."""
    phase = current_phase(state)
    return phase is not None and _any(state["phases"][phase], state["phases"][phase]["in_progress"], running_of)


def _any(phase: PhaseState, names: Iterable[str], parts: Callable[[SubStepState], Iterable[Part]]) -> bool:
    return any(part["interruptions"] >= SUSPECT_AFTER for name in names for _, part in parts(phase["sub_steps"][name]))
