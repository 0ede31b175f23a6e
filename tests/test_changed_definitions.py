"""Workflows whose definition changed while their jobs ran: what each kind of change means for a job half-way.

The job has completed phase `a` (its sub-step `opt` failed, and that was tolerated) and `b/t1`; `b/t2` has failed, so
that it waits for a person; `b/t3` and phase `c` are to come.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from operated_jobs import ANNA, Job, assert_indexes_hold
from shown_jobs import step_plan
from source_tree import ROOT

from steplog.engine import actions
from steplog.engine.adoption import adopted, adoption, differences, policy_differences
from steplog.eventstore.events import PlanAdopted
from steplog.projections.plan import Plan
from steplog.projections.readiness import sub_step_of

Change = Callable[[dict[str, Any]], None]
PAGE = (ROOT / "docs" / "changed-definitions.md").read_text(encoding="utf-8")

PLAN = {
    "phases": [
        {
            "name": "a",
            "sub_steps": [step_plan("s1"), step_plan("s2", needs=["a/s1"]), step_plan("opt", optional=True)],
        },
        {
            "name": "b",
            "sub_steps": [step_plan("t1"), step_plan("t2", needs=["b/t1"]), step_plan("t3", after=["b/t2"])],
        },
        {"name": "c", "sub_steps": [step_plan("u1", needs=["b/t1"]), step_plan("u2")]},
    ]
}


def half_way() -> Job:
    return Job(copy.deepcopy(PLAN)).claim().completes("s1").completes("s2").fails("opt").completes("t1").fails("t2")


def phase(plan: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in plan["phases"] if each["name"] == name)


def step(plan: dict[str, Any], key: str) -> dict[str, Any]:
    of, _, name = key.partition("/")
    return next(each for each in phase(plan, of)["sub_steps"] if each["name"] == name)


def adds(key: str, **changes: Any) -> Change:
    of, _, name = key.partition("/")
    return lambda plan: phase(plan, of)["sub_steps"].append(step_plan(name, **changes))


def removes(key: str) -> Change:
    def change(plan: dict[str, Any]) -> None:
        phase(plan, key.partition("/")[0])["sub_steps"].remove(step(plan, key))
        for each in (each for of in plan["phases"] for each in of["sub_steps"]):
            for edges in ("after", "needs", "defaults"):
                each[edges] = [edge for edge in each[edges] if edge != key]

    return change


def changes(key: str, **values: Any) -> Change:
    return lambda plan: step(plan, key).update(values)


def both(*of: Change) -> Change:
    def change(plan: dict[str, Any]) -> None:
        for each in of:
            each(plan)

    return change


def moves_phase(name: str, to: int) -> Change:
    def change(plan: dict[str, Any]) -> None:
        moved = phase(plan, name)
        plan["phases"].remove(moved)
        plan["phases"].insert(to, moved)

    return change


def new_phase(at: int) -> Change:
    return lambda plan: plan["phases"].insert(at, {"name": "new", "sub_steps": [step_plan("n1")]})


def reverses(name: str) -> Change:
    return lambda plan: phase(plan, name)["sub_steps"].reverse()


SLEEP = {"kind": "sleep", "signal": None, "seconds": 60.0}
RETRY = {"attempts": 9, "wait_s": 1.0, "factor": 2.0, "wait_s_max": 60.0, "jitter": 0.0}

KINDS: dict[str, tuple[Change, str | None]] = {
    "a sub-step is added to a phase to come": (adds("c/new"), None),
    "a sub-step is added to the phase in progress": (adds("b/new"), None),
    "a sub-step is added to a phase that is over": (adds("a/new"), "a/new is new in a phase that is over"),
    "a sub-step to come is removed": (removes("c/u2"), None),
    "a failed sub-step is removed": (removes("b/t2"), None),
    "a completed sub-step is removed": (removes("a/s2"), "a/s2 has completed, and the new plan has no place for that"),
    "a sub-step to come is renamed": (both(removes("b/t3"), adds("b/t4", after=["b/t2"])), None),
    "a completed sub-step is renamed": (both(removes("a/s2"), adds("a/s3", needs=["a/s1"])), "a/s2 has completed"),
    "a sub-step to come moves to another phase": (both(removes("c/u2"), adds("b/u2")), None),
    "a completed sub-step moves to another phase": (both(removes("a/s2"), adds("b/s2")), "a/s2 has completed"),
    "sub-steps of a phase are reordered": (reverses("b"), None),
    "a phase is added behind the one in progress": (new_phase(2), None),
    "a phase is added before one that has begun": (new_phase(1), "a, b have begun, in this order"),
    "a phase to come is removed": (lambda plan: plan["phases"].pop(), None),
    "phases that have begun are reordered": (moves_phase("b", 0), "a, b have begun, in this order"),
    "an edge of a sub-step to come changes": (changes("c/u1", needs=["b/t1", "a/s2"], after=["c/u2"]), None),
    "a completed sub-step needs another result": (
        changes("b/t1", needs=["a/s2"]),
        "b/t1 has completed with other results",
    ),
    "a completed sub-step comes behind another": (changes("b/t1", after=["b/t3"]), "would now come behind b/t3"),
    "a tolerated failure counts": (changes("a/opt", optional=False), "the failure of a/opt was tolerated"),
    "a failure that counted is tolerated": (changes("b/t2", optional=True), None),
    "a condition is added or taken away": (both(changes("c/u2", when=True), changes("a/s1", when=True)), None),
    "a handler to come becomes a wait or a fan-out": (
        both(changes("c/u2", wait=SLEEP), changes("b/t3", map={"parallel": 2})),
        None,
    ),
    "a completed handler becomes a wait or a fan-out": (
        changes("b/t1", map={"parallel": 2}),
        "b/t1 has begun as something else",
    ),
    "retries, timeouts, limits and deadlines change": (
        both(changes("b/t2", retry=RETRY, timeout_s=5.0), lambda plan: phase(plan, "c").update(parallel=1)),
        None,
    ),
}
"""Each kind of change, and what is in the way of it, if anything is."""

EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def changed(kind: str) -> Plan:
    plan = copy.deepcopy(PLAN)
    KINDS[kind][0](plan)
    return cast("Plan", plan)


def adopting(plan: Plan) -> PlanAdopted:
    return PlanAdopted(plan=dict(plan), workflow_version="2", differences=["…"], by="anna")


@EACH_KIND
def test_a_change_is_sound_or_says_what_would_lose_its_meaning(kind: str) -> None:
    found = adoption(half_way().state, changed(kind))
    obstacle = KINDS[kind][1]
    if obstacle is None:
        assert found.obstacles == []
    else:
        assert any(obstacle in each for each in found.obstacles), found.obstacles
    assert bool(found.differences) == (kind != "sub-steps of a phase are reordered")


@EACH_KIND
def test_after_a_sound_change_the_job_goes_on_to_its_end_and_runs_nothing_again(kind: str) -> None:
    if KINDS[kind][1] is not None:
        return
    job, plan = half_way(), changed(kind)
    before = job.state
    completed = [key for key in job.shape.sub_steps if sub_step_of(before, key)["status"] == "completed"]

    resumed = actions.resume(adopted(before, adopting(plan)), ANNA)
    later = Job(dict(plan))
    later.state = before
    later.append(adopting(plan), *resumed)
    assert_indexes_hold(later.state)
    later.lives_on()

    assert later.state["status"] == "completed"
    assert_indexes_hold(later.state)
    for key in completed:
        assert sub_step_of(later.state, key) == sub_step_of(before, key), key
    assert later.state["done"] == later.state["total"] == len(later.shape.sub_steps)


@EACH_KIND
def test_the_page_has_the_kind_and_says_what_becomes_of_it(kind: str) -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", PAGE, flags=re.MULTILINE))
    assert rows[kind].startswith("yes" if KINDS[kind][1] is None else "no: ")


def test_the_page_has_no_other_kinds() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| (?:yes|no: )", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(KINDS)
    assert len(KINDS) >= 20


def test_an_attempt_whose_effect_may_have_happened_is_not_forgotten() -> None:
    job = Job(copy.deepcopy(PLAN)).claim().completes("s1")
    for running in (job.state, job.dies().handed_back().state):
        plan = cast("Plan", copy.deepcopy(PLAN))
        removes("a/s2")(cast("dict[str, Any]", plan))
        (obstacle, *_) = adoption(running, plan).obstacles
        assert "an attempt of a/s2 may have had its effect" in obstacle


def test_a_job_that_has_ended_keeps_its_plan() -> None:
    job = Job(copy.deepcopy(PLAN)).claim()
    job.lives_on()
    (obstacle,) = adoption(job.state, changed("a sub-step is added to a phase to come")).obstacles
    assert "the job is completed" in obstacle


def test_a_rename_is_suspected_and_the_old_name_proposed() -> None:
    found = differences(cast("Plan", PLAN), changed("a completed sub-step is renamed"))
    assert found[0] == "sub-step a/s2 is gone from the code (or is it a/s3 now? then name it so: name='s2')"


def test_policies_alone_are_no_reason_to_refuse_a_job() -> None:
    plan = changed("retries, timeouts, limits and deadlines change")
    assert differences(cast("Plan", PLAN), plan) == []
    assert len(policy_differences(cast("Plan", PLAN), plan)) == 3
