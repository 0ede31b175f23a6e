"""What follows from a definition's plan is made once; no job changes it for the others."""

from __future__ import annotations

from copy import deepcopy

from steplog import Context, NoInput, Retry, Workflow
from steplog.engine.plan import outset_of
from steplog.projections.evolve import fold
from steplog.projections.snapshot import snapshot
from steplog.testing.memory import MemoryStore


def supper() -> Workflow[NoInput, Context]:
    wf = Workflow("supper")
    tries: list[str] = []

    @wf.sub_step(retry=Retry(attempts=2, wait=0))
    async def soup() -> None:
        tries.append("soup")
        if len(tries) % 2:
            raise ValueError("too hot")

    @wf.sub_step(after=[soup])
    async def bread() -> None:
        pass

    return wf


def test_a_job_that_ran_leaves_the_next_one_where_the_first_began() -> None:
    wf, store = supper(), MemoryStore()
    before = deepcopy(outset_of(wf))
    first, second = wf.run(store=store), wf.run(store=store)
    assert outset_of(wf) == before
    assert [first.status, second.status] == ["completed", "completed"]
    for job in (first, second):
        assert snapshot(fold(store.read(job.job_id))) == job.snapshot


def test_what_is_declared_later_is_in_the_plan_of_later_jobs() -> None:
    wf, store = supper(), MemoryStore()
    first = wf.run(store=store)

    @wf.sub_step
    async def cheese() -> None:
        pass

    assert "main/cheese" in outset_of(wf).shape.sub_steps
    assert wf.run(store=store).snapshot["progress"]["total"] == first.snapshot["progress"]["total"] + 1
