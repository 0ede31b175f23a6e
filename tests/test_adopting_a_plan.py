"""`resume --adopt-plan` and `graph`, as people use them: on real stores, by the command line, and side by side."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from steplog import Workflow, result
from steplog.cli import main
from steplog.engine.errors import DataMismatch, PlanMismatch, PlanNotAdopted
from steplog.engine.history import load
from steplog.engine.jobs import resume_blocking
from steplog.engine.worker import Worker
from steplog.eventstore.store import Store

calls: list[str] = []


def order(version: str, *, broken: bool = False, named: str = "cook", extra: bool = False, returns: Any = int) -> Any:
    """A workflow as one deploy after another has it."""
    wf: Workflow[Any, Any] = Workflow("order", version=version)
    first, second = wf.phase("first"), wf.phase("second")

    def count() -> Any:
        calls.append("count")
        return 3

    count.__annotations__["return"] = returns
    counted = first.sub_step(count)

    @second.sub_step(name=named)
    def cook(dishes: Any = result(counted)) -> Any:
        calls.append("cook")
        if broken:
            raise ValueError("no eggs")
        return dishes

    if extra:

        @second.sub_step(after=[cook])
        def serve() -> str:
            calls.append("serve")
            return "served"

    return wf


@pytest.fixture(autouse=True)
def _forget() -> None:
    calls.clear()


def test_a_job_goes_on_with_the_new_plan_and_runs_nothing_again(store: Store) -> None:
    job_id = order("1", broken=True).run(store=store).job_id
    new = order("2", named="fry", extra=True)
    head = store.head(job_id)
    with pytest.raises(PlanMismatch, match=r"second/cook is gone .* is it second/fry now|second/cook is gone"):
        resume_blocking(new, job_id, store, by="anna")
    assert store.head(job_id) == head

    job = resume_blocking(new, job_id, store, by="anna", adopt_plan=True)

    assert job.status == "completed"
    assert calls == ["count", "cook", "cook", "serve"]
    types = [event.type for event in store.read(job_id, head.version)]
    assert types[:3] == ["PlanAdopted", "JobResumed", "JobClaimed"]
    (adopted,) = (event for event in store.read(job_id) if event.type == "PlanAdopted")
    assert (adopted.data["by"], adopted.data["workflow_version"]) == ("anna", "2")
    assert "sub-step second/serve is new in the code" in adopted.data["differences"]
    assert load(store, job_id).state["workflow_version"] == "2"


def test_what_is_unsound_is_refused_and_leaves_no_trace(store: Store) -> None:
    job_id = order("1", broken=True).run(store=store).job_id
    other: Workflow[Any, Any] = Workflow("order")
    other.phase("first").sub_step(lambda: None, name="other")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # a short handler
    head = store.head(job_id)
    with pytest.raises(PlanNotAdopted, match="first/count has completed"):
        resume_blocking(other, job_id, store, by="anna", adopt_plan=True)
    assert store.head(job_id) == head


def test_types_are_compared_after_the_plan_is_adopted(store: Store) -> None:
    job_id = order("1", broken=True).run(store=store).job_id
    with pytest.raises(DataMismatch, match="result of first/count"):
        resume_blocking(order("2", extra=True, returns=list[int]), job_id, store, by="anna", adopt_plan=True)


def test_a_plan_that_is_the_same_is_not_adopted(store: Store) -> None:
    job_id = order("1", broken=True).run(store=store).job_id
    resume_blocking(order("1"), job_id, store, by="anna", adopt_plan=True)
    assert "PlanAdopted" not in [event.type for event in store.read(job_id)]


def test_workers_of_two_versions_leave_each_job_to_the_one_that_can_run_it(store: Store) -> None:
    old, new = order("1"), order("2", extra=True)
    jobs = {
        "1": order("1", broken=True).run(store=store).job_id,
        "2": order("2", broken=True, extra=True).run(store=store).job_id,
    }
    heads = {job_id: store.head(job_id) for job_id in jobs.values()}
    with Worker(store) as worker:
        for job_id, other in ((jobs["1"], new), (jobs["2"], old)):
            with pytest.raises(PlanMismatch):
                worker.claim(job_id, other, resume_by="anna")
    assert heads == {job_id: store.head(job_id) for job_id in jobs.values()}
    assert resume_blocking(old, jobs["1"], store, by="anna").status == "completed"
    assert resume_blocking(new, jobs["2"], store, by="anna").status == "completed"


# --- the command line ------------------------------------------------------------------------------------------------

BEFORE = """
from steplog import Workflow, result
order = Workflow("order")
first, second = order.phase("first"), order.phase("second", parallel=2)

@first.sub_step(optional=True)
def count() -> int:
    return 3

@second.sub_step(retry=2)
def cook(dishes: int = result(count)) -> int:
    raise ValueError("no eggs")
"""
AFTER = (
    BEFORE.replace('raise ValueError("no eggs")', "return dishes")
    + """
approved = second.wait_for_signal("ap`pro\\"ved", after=[cook], timeout=0.01, optional=True)

@second.map(items=["a"], after=[approved])
def serve(dish: str) -> str:
    return dish
"""
)

Run = Callable[..., Result]


@pytest.fixture
def steplog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command in a folder with a failed job of the module `deployed` as it was before; it is changed since."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "steplog.toml").write_text('modules = ["deployed"]\n')

    def run(*arguments: str, exits: int = 0) -> Result:
        sys.modules.pop("deployed", None)
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    (tmp_path / "deployed.py").write_text(BEFORE)
    run("run", "deployed", exits=1)
    (tmp_path / "deployed.py").write_text(AFTER)
    yield run
    sys.modules.pop("deployed", None)


def test_the_refusal_names_the_difference_and_the_command_that_takes_the_plan(steplog: Run) -> None:
    said = steplog("resume", "@last", exits=4).stderr
    assert "sub-step second/serve is new in the code" in said
    assert re.search(r"`steplog resume \S+ --adopt-plan`", said)
    done = steplog("resume", "@last", "--adopt-plan", "--by", "anna")
    assert "changed: sub-step second/serve is new in the code" in done.stderr
    assert json.loads(steplog("show", "@last", "-o", "json").stdout)["status"] == "completed"


def test_graph_shows_the_workflow_and_what_will_surprise(steplog: Run) -> None:
    said = steplog("graph", "deployed").stdout
    assert re.search(r"second  2 at once\n  cook +needs first/count · 2 attempts", said)
    assert "for each item, 16 at once" in said
    assert "second/cook is skipped where first/count has no result: that may fail, and result() has no default" in said
    document = json.loads(steplog("graph", "deployed:order", "-o", "json").stdout)
    assert len(document["surprises"]) == 1
    assert [phase["name"] for phase in document["plan"]["phases"]] == ["first", "second"]


def test_graph_as_a_flowchart_quotes_names(steplog: Run) -> None:
    chart = steplog("graph", "deployed", "--mermaid").stdout.splitlines()
    assert chart[0] == "flowchart TB"
    assert "  s0 --> s1" in chart
    assert "  s1 -.-> s2" in chart
    assert "  p0 ==> p1" in chart
    assert any("ap#96;pro#quot;ved" in line for line in chart)
    assert chart.count("  end") == 2


def test_a_definition_that_cannot_mean_anything_is_an_error_at_import(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "deployed.py").write_text(BEFORE + "\n@first.sub_step\ndef wash(nothing) -> int: ...\n")
    assert "nothing can fill the parameter 'nothing'" in steplog("graph", "deployed", exits=1).stderr
