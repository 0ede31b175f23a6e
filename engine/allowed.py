"""What a person may do with a job and its sub-steps as they are, and what is in the way of the rest.

Pure functions of the state: the command line, the status API and the page show the same answers. Each action has one
rule here; what it then appends is in `actions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from steplog.engine.errors import ActionRefused
from steplog.projections.context_rules import OPERATOR
from steplog.projections.fan_out import attempts_of, is_expanded, item_of, suspended_in, suspended_of
from steplog.projections.plan import Key, Shape, key_of_place, shown_place, split_key
from steplog.projections.readiness import followers, has_begun, sub_step_of
from steplog.projections.state import ENDED, SETTLED, STOPPED, State, SubStepState, is_whole


class Obstacle(NamedTuple):
    """Why not, and the sub-steps that are in the way."""

    why: str
    keys: tuple[Key, ...] = ()


def allowed_actions(state: State) -> list[str]:
    """What may be done with the job now."""
    return [action for action, against in _AGAINST.items() if against(state) is None]


def allowed_sub_step_actions(state: State, key: Key) -> list[str]:
    """What may be done with that sub-step now."""
    shape = Shape.of(state["plan"])
    return [action for action, against in _AGAINST_SUB_STEP.items() if against(state, shape, key) is None]


def require(state: State, action: str) -> None:
    """Raise ActionRefused unless the action is allowed."""
    if obstacle := (_AGAINST | _NOT_OFFERED)[action](state):
        raise ActionRefused(
            state["job_id"], state["status"], action, allowed_actions(state), obstacle.why, blocked_by=obstacle.keys
        )


def require_of(state: State, shape: Shape, action: str, key: Key) -> None:
    """Raise ActionRefused unless the action is allowed on that sub-step."""
    if obstacle := _AGAINST_SUB_STEP[action](state, shape, key):
        raise ActionRefused(
            state["job_id"],
            sub_step_of(state, key)["status"],
            action,
            allowed_sub_step_actions(state, key),
            obstacle.why,
            sub_step=key,
            blocked_by=obstacle.keys,
        )


# --- what actions ask of the state -----------------------------------------------------------------------------------


def is_edited_since(state: State, sub_step: SubStepState) -> bool:
    """Whether a person changed the input or the context after the latest attempt of this generation began."""
    started = sub_step["started_version"]
    if started is None:
        return False
    by_hand = (writers.get(OPERATOR, 0) for writers in state["writers"].values())
    return max((state["input_version"], *by_hand)) > started


def is_held(shape: Shape, key: Key, sub_step: SubStepState) -> bool:
    """Whether its interruption waits for a person."""
    held = shape.sub_steps[key]["on_interrupt"] == "hold"
    return held and sub_step["status"] == "interrupted" and sub_step["reason"] is not None


def stops_the_job(state: State, shape: Shape, key: Key) -> bool:
    """Whether the job cannot go on because of what became of the sub-step."""
    sub_step = sub_step_of(state, key)
    if sub_step["status"] == "failed":
        return not shape.sub_steps[key]["optional"]
    return is_held(shape, key, sub_step)


def backing_off(state: State) -> list[Key]:
    """Sub-steps whose next attempt is scheduled."""
    return [
        f"{phase}/{name}"
        for phase, of_phase in state["phases"].items()
        for name in suspended_in(of_phase)
        if any(step["status"] == "retrying" for _, step in suspended_of(of_phase["sub_steps"][name]))
    ]


# --- rules of the job ------------------------------------------------------------------------------------------------

_ERASED = "its secrets were erased, and nothing of it can run any more"


def _closed(state: State) -> Obstacle | None:
    if not is_whole(state):
        return Obstacle("it is a fork that was not made to its end: fork again")
    if state["erased"]:
        return Obstacle(_ERASED)
    if state["status"] in ENDED:
        return Obstacle("it has ended: reset a sub-step to open it again, or fork it")
    if state["undoing"]:
        return Obstacle("it is being undone, or has been: it can only be forked")
    return None


def _against_pause(state: State) -> Obstacle | None:
    if state["status"] in STOPPED and not state["undoing"]:
        return Obstacle("it stands still already")
    return _closed(state) or _against_asking(state, {"pause", "cancel"})


def _against_resume(state: State) -> Obstacle | None:
    if state["undoing"] and state["status"] == "parked":
        return None
    if state["status"] not in STOPPED:
        return _closed(state) or Obstacle("it is not stopped")
    return _closed(state) or undecided(state)


def undecided(state: State) -> Obstacle | None:
    """The context fields that a person has to decide about first."""
    if not state["refused"]:
        return None
    said = "; ".join(f"{shown_place(place)} wrote {', '.join(fields)}" for place, fields in state["refused"].items())
    keys = tuple(dict.fromkeys(map(key_of_place, state["refused"])))
    return Obstacle(f"{said}, and so had others: set that, or accept the context as it is", keys)


def _against_cancel(state: State) -> Obstacle | None:
    if (state["erased"] or not is_whole(state)) and state["status"] not in ENDED:
        return None
    return _closed(state) or _against_asking(state, {"cancel"})


def _against_asking(state: State, asked: set[str]) -> Obstacle | None:
    """Its owner is to do that already, or something stronger; where it has none by now, it is done at once."""
    if state["requested"] in asked and state["worker_id"]:
        return Obstacle(f"its worker was asked to {state['requested']} it already")
    return None


def _against_retry_of_all(state: State) -> Obstacle | None:
    if state["status"] in ("failed", "parked"):
        return _against_resume(state)
    return _closed(state) or (None if backing_off(state) else Obstacle("it has not failed, and nothing backs off"))


def _against_new_input(state: State) -> Obstacle | None:
    if state["status"] not in STOPPED:
        return _closed(state) or Obstacle("its input is read while it runs: pause it first")
    return _closed(state)


def _against_fork(state: State) -> Obstacle | None:
    return None if is_whole(state) and not state["erased"] else _closed(state)


def _against_erasing(state: State) -> Obstacle | None:
    if state["erased"]:
        return Obstacle("its secrets are erased already")
    if state["status"] not in STOPPED | ENDED:
        return Obstacle("it may run, and needs them: pause or cancel it first")
    return None


_AGAINST: dict[str, Callable[[State], Obstacle | None]] = {
    "resume": _against_resume,
    "pause": _against_pause,
    "cancel": _against_cancel,
    "retry": _against_retry_of_all,
    "set": _closed,
    "edit-input": _against_new_input,
    "signal": _closed,
    "fork": _against_fork,
}

_NOT_OFFERED = {"erase": _against_erasing}
"""What nobody is to try because it is allowed."""

# --- rules of an item ------------------------------------------------------------------------------------------------

ITEM_ACTIONS = ("retry", "skip", "complete", "fail")


def allowed_item_actions(state: State, key: Key, item: str) -> list[str]:
    """What may be done with that item of a fan-out now."""
    shape = Shape.of(state["plan"])
    return [action for action in ITEM_ACTIONS if against_item(state, shape, action, key, item) is None]


def against_item(state: State, shape: Shape, action: str, key: Key, item: str) -> Obstacle | None:
    """What is in the way of the action on that item."""
    sub_step = sub_step_of(state, key)
    status = item_of(sub_step, item)["status"]
    if closed := _closed(state):
        return closed
    if not is_expanded(sub_step) or (sub_step["status"] in SETTLED and not stops_the_job(state, shape, key)):
        return Obstacle(f"{key} has settled: retry or reset it", (key,))
    if action == "retry" and sub_step["status"] in SETTLED:
        return Obstacle(f"{key} has failed: retry or resume that, and all its failed items run again", (key,))
    if action == "retry":
        return None if status in ("failed", "retrying", "interrupted") else Obstacle("it has not failed")
    if status in SETTLED and (status != "failed" or action == "fail"):
        return Obstacle("it has settled")
    return None


# --- rules of a sub-step ---------------------------------------------------------------------------------------------


def _against_settling(settled_too: frozenset[str]) -> Callable[[State, Shape, Key], Obstacle | None]:
    """The rule of an action that settles a sub-step: an open one, or one settled in a way that may be changed."""

    def against(state: State, shape: Shape, key: Key) -> Obstacle | None:
        status = sub_step_of(state, key)["status"]
        if closed := _closed(state):
            return closed
        if status in SETTLED - settled_too:
            return Obstacle(
                "it has failed already" if status == "failed" else "it has settled: only a reset makes it undone"
            )
        if unmet := _unmet(state, shape, key):
            named = ", ".join(f"{edge} ({sub_step_of(state, edge)['status']})" for edge in unmet[:_NAMED_MAX])
            return Obstacle(f"it needs {named}", tuple(unmet))
        return None

    return against


def _unmet(state: State, shape: Shape, key: Key) -> list[Key]:
    """Edges from what has not settled, or has failed in a way that the job cannot go on with."""
    step = shape.sub_steps[key]
    edges = dict.fromkeys((*step["after"], *step["needs"]))
    return [
        edge for edge in edges if sub_step_of(state, edge)["status"] not in SETTLED or stops_the_job(state, shape, edge)
    ]


def _against_retry(state: State, shape: Shape, key: Key) -> Obstacle | None:
    status = sub_step_of(state, key)["status"]
    phase = split_key(key)[0]
    if closed := _closed(state):
        return closed
    if status not in ("failed", "retrying", "interrupted") and not _backs_off(sub_step_of(state, key)):
        return Obstacle("it has settled: reset it" if status in SETTLED else "it has not failed")
    if state["phases"][phase]["status"] == "completed":
        return Obstacle(f"{phase} is over: reset it")
    if went_on := followers(state, shape, key):
        return Obstacle(f"{_named(went_on)} went on without it: reset it with them", tuple(went_on))
    if state["status"] not in ("failed", "parked"):
        return None
    return undecided(state) or _stops_again(state, shape, {key}, "retry them together, or settle them by hand")


def _backs_off(sub_step: SubStepState) -> bool:
    """Whether it is a fan-out with items that wait to run again."""
    return sub_step["items"] is not None and bool(sub_step["items"]["suspended"])


def _against_reset(state: State, shape: Shape, key: Key) -> Obstacle | None:
    if not is_whole(state) or state["undoing"] or state["erased"]:
        return _closed(state)
    reset = [key, *followers(state, shape, key)]
    if running := [each for each in reset if _runs(sub_step_of(state, each))]:
        return Obstacle(f"{_named(running)} in progress: pause the job, or settle them by hand", tuple(running))
    if len(reset) == 1 and not has_begun(sub_step_of(state, key)):
        return Obstacle("nothing has happened to it")
    if state["status"] in ("failed", *ENDED):
        return _stops_again(state, shape, set(reset), "retry or settle them first")
    return None


def _runs(sub_step: SubStepState) -> bool:
    return sub_step["status"] == "in_progress" and attempts_of(sub_step) > 0


def _stops_again(state: State, shape: Shape, but: set[Key], instead: str) -> Obstacle | None:
    """What would stop the job again at once, however these fare."""
    others = [key for key in shape.sub_steps if key not in but and stops_the_job(state, shape, key)]
    return Obstacle(f"{_named(others)} would stop the job again: {instead}", tuple(others)) if others else None


def _named(keys: Iterable[Key]) -> str:
    """The keys as a sentence names them: all of a few, else how many more there are."""
    keys = list(keys)
    return ", ".join(keys[:_NAMED_MAX]) + (f" and {len(keys) - _NAMED_MAX} more" if len(keys) > _NAMED_MAX else "")


_NAMED_MAX = 10

_AGAINST_SUB_STEP: dict[str, Callable[[State, Shape, Key], Obstacle | None]] = {
    "retry": _against_retry,
    "skip": _against_settling(frozenset({"failed"})),
    "complete": _against_settling(frozenset({"failed"})),
    "fail": _against_settling(frozenset()),
    "reset": _against_reset,
}
