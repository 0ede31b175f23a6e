"""steplog: transactional sub-steps that each insert a row of their own, jobs run one at a time or at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from program import Measured, Stopwatch, Work, at_once, main
from step_rows import EFFECTS
from steplog_jobs import refuse_what_is_not_in_the_log
from steplog_stores import durability_of, opened

from steplog import Step, Transaction, Workflow
from steplog.eventstore.store import Store


def chain(steps: int) -> Workflow[Any, Any]:
    """Sub-steps that each have one effect, one after the other."""
    workflow: Workflow[Any, Any] = Workflow(f"chain of {steps} transactions")
    before: list[Any] = []
    for number in range(steps):

        def insert(step: Step, tx: Transaction, number: int = number) -> None:
            tx.execute("insert into effects values (%s, %s)", [step.job_id, number])

        before = [workflow.sub_step(name=f"s{number}", after=before)(insert)]
    return workflow


def measure(work: Work) -> Measured:
    with opened(work.store) as store:
        workflow, watch = chain(work.steps), Stopwatch()
        make_table(store)
        asyncio.run(at_once(lambda: workflow.arun(store=store), replace(work, jobs=2, at_once=1)))
        with watch.running():
            jobs = asyncio.run(at_once(lambda: workflow.arun(store=store), work))
        refuse_what_is_not_in_the_log(store, jobs, work.steps)
        refuse_other_effects(store, (2 + work.jobs) * work.steps)
        return Measured(work.jobs * work.steps, watch.seconds, durability_of(store), warm_up=2 * work.steps)


def make_table(store: Store) -> None:
    transaction = store.begin()
    transaction.execute(EFFECTS)
    transaction.commit()


def refuse_other_effects(store: Store, expected: int) -> None:
    transaction = store.begin()
    ((found,),) = transaction.execute("select count(*) from effects").fetchall()
    transaction.roll_back()
    if found != expected:
        raise RuntimeError(f"{found} effects are there (expected {expected})")


if __name__ == "__main__":
    main(measure)
