"""The virtual loop of a story, on which a process can die: from then on nothing of it is ever called again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from simulation.reaching import caller

from steplog.testing.clock import VirtualClock
from steplog.testing.loop import VirtualLoop

if TYPE_CHECKING:
    from simulation.world import Process


class Loop(VirtualLoop):
    """Calls `turn` before each round of what is ready."""

    def __init__(self, clock: VirtualClock, turn: Callable[[], None]) -> None:
        super().__init__(clock)
        self._turn = turn

    def turn(self) -> None:
        self._turn()

    def forget(self, process: Process) -> None:
        """Call nothing of the process again; what it would have looked at, nobody has to."""
        inside = cast(Any, self)
        for handle in (*inside._ready, *inside._scheduled):
            if handle._context.get(caller) is process:
                _look_at(handle._args or ())
                handle.cancel()

    def clear(self) -> None:
        """Call nothing of anybody."""
        inside = cast(Any, self)
        inside._ready.clear()
        inside._scheduled.clear()


def _look_at(arguments: tuple[Any, ...]) -> None:
    for each in arguments:
        if isinstance(each, asyncio.Future) and each.done() and not each.cancelled():
            each.exception()
