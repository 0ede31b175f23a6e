"""The attempts of a job that run in this process, and the places that they hold."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from test_interruptions import Job

from steplog import Workflow
from steplog.engine.attempts import Attempts
from steplog.engine.decider import in_progress
from steplog.engine.inbox import Inbox
from steplog.engine.isolation.processes import Isolation
from steplog.engine.observing import watch_of
from steplog.engine.vault import new_vault
from steplog.eventstore.store import Claim
from steplog.testing.clock import VirtualClock


def test_an_attempt_settled_before_its_handler_began_leaves_its_place() -> None:
    """A person completed the sub-step, and reset it, while the append that started it was not answered yet."""
    wf: Workflow[Any, Any] = Workflow("settled")
    called: list[str] = []

    @wf.sub_step
    async def work() -> None:
        called.append("work")

    async def settled_at_once() -> Attempts:
        job = Job(wf)
        (of,) = in_progress(job.state)
        watch = watch_of(wf, job.state, Claim("w", 1, "c"))
        inbox, vault, clock = Inbox(asyncio.get_running_loop()), new_vault("j1"), VirtualClock()
        attempts = Attempts(wf, inbox, None, vault, clock, 60.0, watch, cast(Any, None), Isolation(), "w")
        attempts.start(of, job.state, None)
        attempts.abandon(of)
        await attempts.close()
        return attempts

    attempts = asyncio.run(settled_at_once())
    assert (attempts.are_running, attempts.occupied, called) == (False, set(), [])
