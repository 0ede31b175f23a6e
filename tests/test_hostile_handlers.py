"""Whatever a handler does, its outcome is recorded and the runner goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from steplog import Retry, Workflow
from steplog.eventstore.limits import ERROR_MESSAGE_CHARS_MAX
from steplog.eventstore.store import Store


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def recursion() -> int:
    return recursion() + 1


def raises(error: BaseException) -> Callable[[], Any]:
    def handler() -> None:
        raise error

    return handler


HOSTILE = {
    "SystemExit": raises(SystemExit(3)),
    "KeyboardInterrupt": raises(KeyboardInterrupt()),
    "CancelledError": raises(asyncio.CancelledError()),
    "GeneratorExit": raises(GeneratorExit()),
    "Unspeakable": raises(Unspeakable()),
    "RecursionError": recursion,
    "MemoryError": raises(MemoryError()),
    "ExceptionGroup": raises(ExceptionGroup("several", [ValueError("one"), KeyError("two")])),
    "UnicodeError": raises(UnicodeError("nul \x00 and lone \ud800")),
    "PayloadRefused": lambda: object(),
    "OverflowError": raises(OverflowError("x" * 10_000_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("is_async", [True, False])
def test_the_outcome_is_recorded_and_a_sibling_is_not_disturbed(store: Store, name: str, is_async: bool) -> None:
    wf = Workflow("hostile")
    handler = HOSTILE[name]

    async def handler_async() -> Any:
        return handler()

    def handler_plain() -> Any:
        return handler()

    wf.sub_step(name="hostile", optional=True)(handler_async if is_async else handler_plain)

    @wf.sub_step
    async def sibling() -> str:
        await asyncio.sleep(0.01)
        return "undisturbed"

    job = wf.run(store=store)

    error = job.snapshot["phases"]["main"]["sub_steps"]["hostile"]["error"]
    assert (job.status, job.result(sibling), error["type"]) == ("completed", "undisturbed", name)
    assert len(error["message"]) < ERROR_MESSAGE_CHARS_MAX + 100


def test_what_ends_a_process_elsewhere_is_not_tried_again(store: Store) -> None:
    wf = Workflow("exits")
    wf.sub_step(name="exits", retry=Retry(attempts=3, wait=0))(raises(SystemExit(1)))

    job = wf.run(store=store)

    assert job.snapshot["phases"]["main"]["sub_steps"]["exits"]["attempts"] == 1


def test_a_handler_that_swallows_its_cancellation_is_recorded_as_late(store: Store) -> None:
    wf = Workflow("swallows")

    @wf.sub_step(timeout="20ms", optional=True)
    async def swallows() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "still here"
        return "never"

    @wf.sub_step
    async def slower() -> None:
        await asyncio.sleep(0.2)

    events = list(store.read(wf.run(store=store).job_id))

    (late,) = [event.data for event in events if event.type == "LateOutcome"]
    assert (late["outcome"], late["result"]) == ("completed", "still here")
