"""`isolate="process"`: each attempt in a process of its own, which dies with it, for it, and never its worker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isolated_handlers import (
    DEEDS,
    Where,
    deaf,
    endless,
    facade,
    hostile,
    leaks,
    leaky,
    plain,
    polite,
    slow,
    undone,
)
from isolated_handlers import asynchronous as asynchronous_step
from isolated_threads import is_imported_here, threaded

from steplog import DefinitionError, Settings, Step, Transaction, Workflow
from steplog.engine import operators
from steplog.engine.jobs import run_here
from steplog.engine.shared import worker_for
from steplog.eventstore.store import HeadQuery, Store
from steplog.testing.kit import Kit

ENDED_S_MAX = 12
PATIENT = Settings(heartbeat_s=0.05, grace_s=60)
QUICK = Settings(heartbeat_s=0.05, grace_s=0.2)


def events_of(store: Store, job_id: str, type: str) -> list[dict[str, Any]]:
    return [event.data for event in store.read(job_id) if event.type == type]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def is_running(pid: int) -> bool:
    """Whether it does anything: what nobody waits for stays on as a zombie."""
    return is_alive(pid) and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


# --- what a handler has ----------------------------------------------------------------------------------------------


def test_it_has_there_what_it_has_here(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATED_TEST_FOLDER", str(tmp_path))

    job = facade.run(Where(folder=tmp_path), store=store)

    seen = job.result(plain)
    assert job.status == "completed", job.snapshot
    assert (seen.cursor, seen.files, seen.attempt) == ({"at": 7}, ["kept"], 2)
    assert job.context.files == ["kept"]
    assert (seen.resource, (tmp_path / "resource").read_text()) == (f"opened in {seen.pid}", f"closed in {seen.pid}")
    first, second = job.result(asynchronous_step)
    assert len({first, second, os.getpid()}) == 3
    assert first == seen.pid
    assert [said["lines"] for said in events_of(store, job.job_id, "SubStepLogged")] == [["a line"]]
    assert [said["note"] for said in events_of(store, job.job_id, "SubStepProgressed")] == ["half"]
    cursors = [reached["cursor"] for reached in events_of(store, job.job_id, "SubStepCheckpointed")]
    assert cursors == [{"at": 7}, [1], [2], [3]]
    assert events_of(store, job.job_id, "SubStepSkipped")[0]["reason"] == f"nothing in {tmp_path.name}"
    assert not is_alive(first)
    assert not is_alive(second)


def test_what_an_attempt_leaks_is_gone_with_it(sqlite_store: Store) -> None:
    job = leaky.run(store=sqlite_store)

    found = job.result(leaks)
    assert [each["leaked"] for each in found] == [1, 1, 1, 1]
    assert len({each["pid"] for each in found}) == 4
    assert not any(is_alive(each["pid"]) for each in found)
    assert len({each["imported_in"] for each in found}) == 1, "the code was imported once, for all of them"


def test_nothing_is_forked_beside_a_thread(sqlite_store: Store) -> None:
    assert threaded.run(store=sqlite_store).result(is_imported_here)


def test_a_compensation_may_have_a_process_too(sqlite_store: Store, tmp_path: Path) -> None:
    job = undone.run(Where(folder=tmp_path), store=sqlite_store)

    receipt, pid, key = json.loads((tmp_path / "refunded").read_text())
    assert (job.status, receipt) == ("failed", "receipt")
    assert pid != os.getpid()
    assert key == events_of(sqlite_store, job.job_id, "CompensationStarted")[0]["idempotency_key"]


# --- hostile ones ----------------------------------------------------------------------------------------------------

ENDS = {
    "SystemExit": ("SystemExit", "3"),
    "KeyboardInterrupt": ("KeyboardInterrupt", ""),
    "CancelledError": ("CancelledError", ""),
    "Unspeakable": ("Unspeakable", "(its message cannot be read: RuntimeError)"),
    "RecursionError": ("RecursionError", "maximum recursion depth exceeded"),
    "Fatal": ("Fatal", "no more"),
    "no JSON": ("PayloadRefused", "result"),
    "too large": ("PayloadRefused", "bytes are more than"),
    "exit code": ("HandlerProcessDied", "ended with exit code 7"),
    "killed": ("HandlerProcessDied", "was killed by SIGKILL"),
    "crash": ("HandlerProcessDied", "was killed by SIGSEGV"),
    "closes everything": ("HandlerProcessDied", ""),
    "babbles": ("ValueError", "no frame"),
}
RESULTS = {
    "much printed": None,
    "signals": "still here",
    "forks and returns": "the parent's, of a child that ended with 0",
    "forks and exits": "the parent's, of a child that ended with 5",
    "good": "good",
}


def test_whatever_it_does_fails_its_own_attempt_alone(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOLATED_TEST_FOLDER", str(tmp_path))
    job = hostile.run(store=sqlite_store)

    assert job.status == "completed"
    for name in ("plainly", "asynchronously"):
        failed = of_items(sqlite_store, job.job_id, name, "SubStepFailed")
        completed = of_items(sqlite_store, job.job_id, name, "SubStepCompleted")
        assert {deed: each.get("result") for deed, each in completed.items()} == RESULTS
        assert failed.keys() == ENDS.keys()
        for deed, (kind, message) in ENDS.items():
            error = failed[deed]["error"]
            assert error["type"] == kind, error
            assert message in error["message"]
        assert "isolated_handlers.py" in failed["crash"]["error"]["traceback"], "where it crashed is known"
    lines = [line for each in events_of(sqlite_store, job.job_id, "SubStepLogged") for line in each["lines"]]
    told = 2 * [f"about to do {deed}" for deed in DEEDS] + len(DEEDS) * ["now"]
    assert sorted(lines) == sorted(told), "a last line is not lost"
    left = [int(pid) for pid in (tmp_path / "left").read_text().split()]
    assert [pid for pid in left if is_running(pid)] == [], "what it had started is killed with it"


def of_items(store: Store, job_id: str, sub_step: str, type: str) -> dict[str, dict[str, Any]]:
    found = [each for each in events_of(store, job_id, type) if each["sub_step"] == sub_step]
    return {each["item"]: each for each in found if "item" in each}


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_process_that_takes_too_long_is_killed_before_the_next_attempt(store: Store, tmp_path: Path) -> None:
    job = asyncio.run(run_here(slow, Where(folder=tmp_path), store=store, settings=PATIENT))

    assert job.status == "completed"
    assert job.result(deaf) is False, "its first attempt was still there"
    failed = {each["sub_step"]: each["error"]["type"] for each in events_of(store, job.job_id, "SubStepFailed")}
    assert failed == dict.fromkeys(["deaf", "cleans_up"], "HandlerTimeout")
    assert (tmp_path / "cleaned").read_text() == "True"
    logged = events_of(store, job.job_id, "SubStepLogged")
    assert [each["lines"] for each in logged] == [["before the timeout"]]


def run_until_begun(workflow: Workflow[Any, Any], store: Store, folder: Path, act: Callable[[str], Any]) -> Any:
    """Run until its handler's process says that it has begun, do something to the job, and wait for its end.

    The process is gone when this returns, for it holds the pipe, and was gone before its worker ended.
    """
    os.mkfifo(folder / "alive")

    async def both() -> Any:
        async with worker_for(store, QUICK):
            return await until_the_pipe_is_closed()

    async def until_the_pipe_is_closed() -> Any:
        running = asyncio.create_task(run_here(workflow, Where(folder=folder), store=store, settings=QUICK))
        alive = await asyncio.to_thread(os.open, folder / "alive", os.O_RDONLY)
        assert await asyncio.to_thread(os.read, alive, 100) == b"begun\n"
        job_id = store.heads(HeadQuery(limit=1))[0].job_id
        if act(job_id) == "stop":
            running.cancel()
        await asyncio.wait({running}, timeout=ENDED_S_MAX)
        assert await asyncio.wait_for(asyncio.to_thread(os.read, alive, 100), ENDED_S_MAX) == b""
        os.close(alive)
        return job_id

    return asyncio.run(both())


def test_a_job_that_is_cancelled_ends_a_process_that_does_not_look(store: Store, tmp_path: Path) -> None:
    job_id = run_until_begun(endless, store, tmp_path, lambda job_id: operators.cancel(store, job_id, by="anna"))

    assert store.head(job_id).columns.status == "cancelled"
    assert events_of(store, job_id, "SubStepInterrupted")[0]["cause"] == "cancelled"


def test_one_that_looks_stops_by_itself(sqlite_store: Store, tmp_path: Path) -> None:
    job_id = run_until_begun(
        polite, sqlite_store, tmp_path, lambda job_id: operators.cancel(sqlite_store, job_id, by="anna")
    )

    assert (tmp_path / "stopped").exists()
    assert sqlite_store.head(job_id).columns.status == "cancelled"


def test_a_job_that_is_handed_back_leaves_no_process(sqlite_store: Store, tmp_path: Path) -> None:
    job_id = run_until_begun(endless, sqlite_store, tmp_path, lambda job_id: "stop")

    assert events_of(sqlite_store, job_id, "SubStepInterrupted")[0]["cause"] == "handed back"


def test_a_process_dies_with_its_worker(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    program = (
        "from isolated_handlers import *\n"
        f"endless.run(Where(folder={str(tmp_path)!r}), store='sqlite:///{tmp_path}/steplog.db')"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=path) as worker, open(tmp_path / "alive") as alive:
        assert alive.readline() == "begun\n"
        worker.kill()
        assert alive.read() == "", "its end closes the pipe, and nothing else does"


# --- declaring and testing -------------------------------------------------------------------------------------------


def test_a_transaction_stays_with_the_worker() -> None:
    def handler(step: Step, tx: Transaction) -> None: ...

    handler.__qualname__ = "handler"
    with pytest.raises(DefinitionError, match="main/handler: isolate='process' and a transaction exclude each other"):
        Workflow("both").sub_step(isolate="process")(handler)


def test_a_handler_that_nobody_can_import_is_refused() -> None:
    with pytest.raises(DefinitionError, match="needs a handler at module level"):
        Workflow("local").sub_step(isolate="process")(lambda: None)


def test_a_workflow_that_no_module_holds_fails_its_attempt(sqlite_store: Store) -> None:
    wf = Workflow("held by nobody")
    wf.sub_step(isolate="process", optional=True)(is_alive_handler)

    job = wf.run(store=sqlite_store)

    assert "in a variable of a module" in events_of(sqlite_store, job.job_id, "SubStepFailed")[0]["error"]["message"]


def is_alive_handler() -> None: ...


def test_a_module_that_runs_its_workflow_when_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "unguarded.py").write_text(
        "from steplog import Workflow\n"
        "wf = Workflow('unguarded')\n"
        "@wf.sub_step(isolate='process')\n"
        "def handler(): ...\n"
        f"print(wf.run(store='sqlite:///{tmp_path}/steplog.db').snapshot)\n"
    )

    ran = subprocess.run([sys.executable, "unguarded.py"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert "under `if __name__ == \\'__main__\\':`" in ran.stdout.replace('"', "'")


def test_the_testing_kit_runs_it_in_line(tmp_path: Path) -> None:
    job = Kit().run_blocking(leaky)

    assert {each["pid"] for each in job.result(leaks)} == {os.getpid()}
