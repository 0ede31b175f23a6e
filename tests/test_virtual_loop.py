from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from steplog.testing.clock import VirtualClock
from steplog.testing.loop import Deadlock, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    virtual = VirtualLoop(VirtualClock())
    yield virtual
    virtual.close()


def test_a_year_of_waiting_passes_on_the_clock_alone(loop: VirtualLoop) -> None:
    async def wait() -> float:
        await asyncio.sleep(365 * 86_400)
        return asyncio.get_running_loop().time()

    assert loop.run_until_complete(wait()) == 365 * 86_400
    assert loop.clock.now() == "2027-01-01T00:00:00.000000Z"


def test_timers_come_in_the_order_of_their_times(loop: VirtualLoop) -> None:
    woken: list[tuple[float, float]] = []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((seconds, loop.time()))

    async def waits() -> None:
        await asyncio.gather(*(wait(seconds) for seconds in (3.0, 0.1, 2.5, 0.7)))

    loop.run_until_complete(waits())
    assert woken == [(seconds, seconds) for seconds in (0.1, 0.7, 2.5, 3.0)]


def test_a_timeout_is_as_long_as_it_says(loop: VirtualLoop) -> None:
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.1):
                await asyncio.get_running_loop().create_future()
        return loop.time()

    assert loop.run_until_complete(wait()) == pytest.approx(1.1, abs=2e-6)


def test_what_would_run_in_a_thread_runs_at_once_and_raises_what_it_raises(loop: VirtualLoop) -> None:
    async def call() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: 7)

    assert loop.run_until_complete(call()) == 7
    assert loop.time() == 0.0


def test_waiting_for_what_will_never_come_is_refused_by_name(loop: VirtualLoop) -> None:
    async def wait_for_nothing() -> None:
        await asyncio.Event().wait()

    task = loop.create_task(wait_for_nothing(), name="job 7")
    with pytest.raises(Deadlock, match=r"no timer is set: job 7 at wait_for_nothing:\d+ would wait for ever"):
        loop.run_until_complete(task)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
