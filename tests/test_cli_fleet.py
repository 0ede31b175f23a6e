"""Commands of a fleet: submit, worker, batch, in a folder of their own."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from steplog.cli import main
from steplog.engine.jobs import prepare
from steplog.engine.worker import Worker
from steplog.eventstore.sqlite import SQLiteStore

SHOP = """
from pydantic import BaseModel
from steplog import Step, Workflow

class Order(BaseModel):
    dish: str = "soup"

orders = Workflow("orders", input=Order)

@orders.sub_step
def cook(step: Step[Order]) -> str:
    if step.input.dish == "stone":
        raise ValueError("cannot be cooked")
    return step.input.dish

bills = Workflow("bills")
bills.sub_step(name="write")(lambda: 1)
"""

Run = Callable[..., Result]


@pytest.fixture
def steplog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command in a folder that has the module `shop`; fails unless it exits as expected."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "empty.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, exits: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, input=input, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    yield run
    for name in ("shop", "empty"):
        sys.modules.pop(name, None)


def shown(steplog: Run, job_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(steplog("-o", "json", "show", job_id).stdout)
    return found


def test_a_submitted_job_is_run_by_a_worker_of_one_shot(steplog: Run) -> None:
    job_id = steplog("submit", "shop:orders", "-P", "dish=stew", "--key", "k", "--tag", "house=7").stdout.strip()
    assert shown(steplog, job_id)["status"] == "queued"
    assert steplog("submit", "shop:orders", "-P", "dish=stew", "--key", "k").stdout.strip() == job_id
    told = steplog("worker", "shop", "--one-shot").stderr
    assert "orders, bills" in told
    assert shown(steplog, job_id)["status"] == "completed"
    assert job_id in steplog("-o", "jsonl", "ls", "--tag", "house=7").stdout


def test_a_key_with_another_input_and_a_bad_input_are_refused(steplog: Run) -> None:
    steplog("submit", "shop:orders", "--key", "k")
    steplog("submit", "shop:orders", "-P", "dish=stew", "--key", "k", exits=4)
    steplog("submit", "shop:orders", "-P", "dish:=7", exits=2)
    steplog("submit", "shop:orders", "--run-at", "soon", exits=2)


def test_a_job_for_later_is_not_run_now(steplog: Run) -> None:
    job_id = steplog("submit", "shop:bills", "--run-at", "in 2h").stdout.strip()
    steplog("worker", "shop:bills", "--one-shot")
    assert shown(steplog, job_id)["status"] == "queued"


def test_a_worker_without_a_workflow_is_told_so(steplog: Run) -> None:
    steplog("worker", exits=2)
    steplog("worker", "empty", exits=3)
    steplog("worker", "no_such_module", exits=3)


def test_a_batch_is_submitted_run_and_counted(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text('{"dish": "soup"}\n\n{"dish": "stone"}\n{}\n')
    batch_id = steplog("batch", "submit", "shop:orders", "orders.jsonl", "--name", "monday").stdout.strip()
    assert batch_id == "monday"
    assert json.loads(steplog("-o", "json", "batch", "ls").stdout)[0]["statuses"] == {"queued": 3}
    steplog("worker", "shop", "--one-shot")
    (counted,) = json.loads(steplog("-o", "json", "batch", "show", "monday", "--watch", exits=1).stdout)
    assert (counted["jobs"], counted["done"], counted["failed"], counted["running"]) == (3, 2, 1, 0)
    assert "2 completed, 1 failed" in steplog("batch", "show", "monday").stdout
    assert "1 jobs cancelled" in steplog("batch", "cancel", "monday").stdout
    steplog("batch", "show", "tuesday", exits=3)


def test_a_batch_with_a_bad_line_says_which(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text('{"dish": "soup"}\n{"dish"\n')
    assert "line 2" in steplog("batch", "submit", "shop:orders", "orders.jsonl", exits=2).stderr


def test_workers_and_what_stands_still_are_shown_and_resumed_together(steplog: Run, tmp_path: Path) -> None:
    sys.path.insert(0, str(tmp_path))
    orders = importlib.import_module("shop").orders
    with closing(SQLiteStore(tmp_path / "steplog.db")) as store:
        with Worker(store) as worker:
            jobs = [store.create(prepare(worker, orders, {"dish": "soup"}, None)[1]) for _ in range(2)]
            (seen,) = json.loads(steplog("-o", "json", "workers").stdout)["workers"]
            assert (seen["worker_id"], seen["state"], seen["jobs"]) == (worker.worker_id, "alive", 2)
            assert "1 worker lives" in steplog("workers").stdout
        stalled = json.loads(steplog("-o", "json", "workers").stdout)["stalled"]
    assert sorted(each["job_id"] for each in stalled) == sorted(jobs)
    assert f"resume {jobs[0]}" in steplog("workers").stdout
    assert "stands still" in steplog("doctor").stderr
    steplog("resume", exits=2)
    assert "2 jobs stand still" in steplog("--module", "shop", "resume", "--all-stalled").stderr
    assert {shown(steplog, job_id)["status"] for job_id in jobs} == {"completed"}
    assert json.loads(steplog("-o", "json", "workers").stdout)["stalled"] == []


def test_a_job_that_waits_for_a_worker_is_told_by_its_age(steplog: Run) -> None:
    job_id = steplog("submit", "shop:bills", "--run-at", "2026-01-01T00:00:00Z").stdout.strip()
    seen = json.loads(steplog("-o", "json", "workers").stdout)
    assert seen["oldest_ready"]["job_id"] == job_id
    assert seen["oldest_ready"]["seconds"] >= 7200
    assert seen["stalled"][0]["next_step"] == "worker"


def test_watch_says_how_the_job_ended_or_that_it_goes_on(steplog: Run) -> None:
    done = steplog("submit", "shop:orders").stdout.strip()
    steplog("watch", done, "--timeout", "50ms", exits=5)
    failed = steplog("submit", "shop:orders", "-P", "dish=stone").stdout.strip()
    steplog("worker", "shop", "--one-shot")
    steplog("watch", done)
    steplog("watch", failed, exits=1)
    steplog("watch", done, "--timeout", "soon", exits=2)


def test_schedules_are_listed_with_their_next_time(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP + "\nbills.schedule('0 3 * * *', timezone='Europe/Berlin')\n")
    steplog("worker", "shop:bills", "--one-shot")
    (known,) = json.loads(steplog("-o", "json", "schedules").stdout)
    assert (known["workflow"], known["cron"], known["last_at"]) == ("bills", "0 3 * * *", None)
    assert known["next_at"] > known["seen_at"]
    assert "Europe/Berlin" in steplog("schedules").stdout
