"""Many threads at one point at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

Outcome = TypeVar("Outcome")


def in_parallel(threads: int, act: Callable[[int], Outcome]) -> list[Outcome]:
    """What `act(0)`, `act(1)`, … return when all of them start together."""
    barrier = Barrier(threads, timeout=60)

    def start(number: int) -> Outcome:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(start, range(threads)))
