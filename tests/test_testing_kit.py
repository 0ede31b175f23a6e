"""The fixture `steplog`: jobs run to their end at once, on resources of the test's own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from orders_workflow import STOCK, Bank, Order, open_bank, safe

from steplog import Fatal, InputRefused, Retry, Step, Workflow, result, use
from steplog.engine import operators
from steplog.eventstore.clock import seconds_between
from steplog.testing import Deadlock, Kit, process

START = "2026-01-01T00:00:00.000000Z"


def passed_s(steplog: Kit) -> float:
    return seconds_between(START, steplog.clock.now())


# --- waits -----------------------------------------------------------------------------------------------------------


def test_waits_between_attempts_pass_on_the_clock_alone(steplog: Kit) -> None:
    wf = Workflow("waits")

    @wf.sub_step(retry=Retry(attempts=3, wait="1h", factor=2, max_wait="1d", jitter=0))
    def third_time(step: Step) -> int:
        if step.attempt < 3:
            raise ConnectionError
        return step.attempt

    job = steplog.run_blocking(wf)
    assert job.result(third_time) == 3
    assert passed_s(steplog) == pytest.approx(3 * 3600, abs=1)


def test_sleeps_pass_on_the_clock_alone(steplog: Kit) -> None:
    wf = Workflow("sleeps")
    slept = wf.sleep("30d")

    @wf.sub_step(after=[slept])
    async def wakes() -> None:
        await asyncio.sleep(86_400)

    assert steplog.run_blocking(wf).status == "completed"
    assert passed_s(steplog) == pytest.approx(timedelta(days=31).total_seconds(), abs=1)


def test_an_async_handler_that_waits_too_long_times_out(steplog: Kit) -> None:
    wf = Workflow("late")

    @wf.sub_step(timeout="5m")
    async def late() -> None:
        await asyncio.sleep(301)

    job = steplog.run_blocking(wf)
    assert (job.status, job.snapshot["error"]["type"]) == ("failed", "HandlerTimeout")


def test_time_waits_for_a_plain_handler(steplog: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    asked = process._Loop.is_awaited_outside

    def ask(loop: process._Loop, files: int) -> bool:
        answer = asked(loop, files)
        if answer:
            waits.set()
        return answer

    monkeypatch.setattr(process._Loop, "is_awaited_outside", ask)
    wf = Workflow("patient")

    @wf.sub_step(timeout="1m")
    def works() -> None:
        waits.wait(10)

    assert steplog.run_blocking(wf).status == "completed"
    assert passed_s(steplog) < 1


def test_plain_handlers_run_side_by_side(steplog: Kit) -> None:
    wf = Workflow("side by side")
    met = threading.Barrier(2)
    for name in ("one", "two"):
        wf.sub_step(name=name)(lambda: met.wait(10))
    assert steplog.run_blocking(wf).status == "completed"


def test_an_async_handler_may_use_a_real_socket(steplog: Kit) -> None:
    wf = Workflow("socket")

    @wf.sub_step(timeout="1h")
    async def ask(step: Step) -> str:
        reader, writer = await asyncio.open_connection(*address)
        try:
            return (await reader.readline()).decode()
        finally:
            writer.close()
            await writer.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        answering = threading.Thread(target=_say_hello, args=(server,))
        answering.start()
        job = steplog.run_blocking(wf)
        answering.join()
    assert job.result(ask) == "hello\n"


def _say_hello(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"hello\n")


# --- signals and persons ---------------------------------------------------------------------------------------------


approval = Workflow("approval")
approved = approval.wait_for_signal("approved", str)


@approval.sub_step
def ship(by: str = result(approved)) -> str:
    return f"approved by {by}"


def test_a_job_that_waits_for_a_signal_is_returned_and_goes_on_when_it_was_sent(steplog: Kit) -> None:
    waiting = steplog.run_blocking(approval)
    assert waiting.status == "queued"
    assert waiting.snapshot["phases"]["main"]["sub_steps"]["approved"]["status"] == "waiting"

    operators.signal(steplog.store, waiting.job_id, "approved", "anna", by="anna", clock=steplog.clock)
    assert steplog.resume_blocking(approval, waiting.job_id).result(ship) == "approved by anna"


def test_a_signal_that_was_given_is_sent_when_the_job_waits_for_it(steplog: Kit) -> None:
    signals = {"approved": "anna", "never asked for": 1}
    assert steplog.run_blocking(approval, signals=signals).result(ship) == "approved by anna"
    assert steplog.assert_crash_safe_blocking(approval, signals=signals).result(ship) == "approved by anna"


def test_a_signal_that_does_not_come_times_out_at_once(steplog: Kit) -> None:
    wf = Workflow("approval")
    wf.wait_for_signal("approved", timeout="2d")
    assert steplog.run_blocking(wf).snapshot["error"]["type"] == "SignalTimeout"


def test_a_failed_job_is_resumed_once_its_resource_was_mended(steplog: Kit) -> None:
    with steplog.store.transaction() as tx:
        tx.execute(STOCK)
    failed = steplog.run_blocking(safe, Order())
    assert failed.snapshot["error"]["message"] == "no test has the real bank"
    steplog.use(open_bank, Bank())
    assert steplog.resume_blocking(safe, failed.job_id).status == "completed"


def test_a_handler_that_waits_for_nothing_is_named(steplog: Kit) -> None:
    wf = Workflow("stuck")

    @wf.sub_step
    async def stuck() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="main/stuck#1"):
        steplog.run_blocking(wf)


# --- resources -------------------------------------------------------------------------------------------------------


def test_a_replaced_resource_is_given_as_it_is_and_the_workflow_stays_as_it_was(steplog: Kit) -> None:
    bank = Bank()
    steplog.use(open_bank, bank)
    with steplog.store.transaction() as tx:
        tx.execute(STOCK)
    assert steplog.run_blocking(safe, Order(dish="pie", amount=2)).status == "completed"
    assert bank.charges == [("pie", 2)]
    assert safe.sub_steps["taking/charge"].bindings.resources["bank"].provider is open_bank


class Client:
    """Something that could be opened."""

    entered = False

    def __enter__(self) -> Client:
        self.entered = True
        return self

    def __exit__(self, *raised: object) -> None: ...


def open_client() -> Client:
    raise ConnectionError("no test has the real client")


def test_a_replacement_that_could_be_entered_is_not(steplog: Kit) -> None:
    wf = Workflow("entering")

    @wf.sub_step
    def works(client: Client = use(open_client)) -> bool:
        return client.entered

    steplog.use(open_client, Client())
    assert steplog.run_blocking(wf).result(works) is False


def test_a_transaction_writes_to_a_database_that_the_test_sees(steplog: Kit) -> None:
    steplog.use(open_bank, Bank())
    with steplog.store.transaction() as tx:
        tx.execute(STOCK)
    job = steplog.run_blocking(safe, Order())
    with steplog.store.transaction() as tx:
        assert list(tx.execute("select * from stock")) == [(f"soup {job.job_id}", 3)]


# --- sync and async --------------------------------------------------------------------------------------------------


def test_the_loop_of_an_async_test_goes_on_while_the_job_runs(steplog: Kit) -> None:
    wf = Workflow("asks the test")
    asked: asyncio.Event
    loop: asyncio.AbstractEventLoop

    @wf.sub_step
    def ask() -> str:
        return asyncio.run_coroutine_threadsafe(answer(), loop).result(10)

    async def answer() -> str:
        asked.set()
        return "from the test's loop"

    async def main() -> None:
        nonlocal asked, loop
        asked, loop = asyncio.Event(), asyncio.get_running_loop()
        job = await steplog.run(wf)
        assert asked.is_set()
        assert job.result(ask) == "from the test's loop"

    asyncio.run(main())


def test_jobs_that_are_awaited_together_all_run(steplog: Kit) -> None:
    wf = Workflow("many")
    wf.sub_step(name="one")(lambda: 1)

    async def main() -> list[str]:
        return [job.status for job in await asyncio.gather(*(steplog.run(wf) for _ in range(5)))]

    assert asyncio.run(main()) == ["completed"] * 5


@pytest.mark.parametrize("call", ["run_blocking", "assert_crash_safe_blocking"])
def test_the_blocking_form_is_refused_inside_a_running_loop(steplog: Kit, call: str) -> None:
    async def main() -> None:
        getattr(steplog, call)(safe, Order())

    with pytest.raises(RuntimeError, match=rf"write `await steplog\.{call.removesuffix('_blocking')}\("):
        asyncio.run(main())


def test_an_input_that_does_not_fit_is_refused(steplog: Kit) -> None:
    with pytest.raises(InputRefused):
        steplog.run_blocking(safe, {"amount": "many"})  # type: ignore[misc]


def test_what_a_handler_raises_is_in_the_jobs_error_and_not_raised(steplog: Kit) -> None:
    wf = Workflow("fails")

    @wf.sub_step(retry=9)
    def fails() -> None:
        raise Fatal("for good")

    assert steplog.run_blocking(wf).snapshot["error"]["message"] == "for good"


# --- the plugin ------------------------------------------------------------------------------------------------------


def test_a_project_that_does_not_use_the_fixture_imports_next_to_nothing(tmp_path: Path) -> None:
    heavy = "{'steplog', 'pydantic', 'hypothesis', 'psycopg'}"
    code = f"import sys, steplog.testing.plugin; print(*(n for n in sys.modules if n.partition('.')[0] in {heavy}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["steplog", "steplog.testing", "steplog.testing.plugin"]


def test_the_fixture_is_there_without_being_asked_for(tmp_path: Path) -> None:
    (tmp_path / "test_hello.py").write_text(
        "from steplog import Workflow\n\n"
        "def test_hello(steplog):\n"
        "    wf = Workflow('hello')\n"
        "    wf.sub_step(name='greet')(lambda: 'hello')\n"
        "    assert steplog.run_blocking(wf).status == 'completed'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in run.stdout, run.stdout + run.stderr
