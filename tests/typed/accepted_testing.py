from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from steplog import Context, JobHandle, NoInput, Step, Workflow
from steplog.testing import Kit, LoneStep, step


class Signup(BaseModel, frozen=True):
    restaurant_id: str


class Progress(Context):
    n: int = 0


wf = Workflow("registration", input=Signup, context=Progress)
plain = Workflow("plain")


@wf.sub_step
def account(step: Step[Signup, Progress]) -> str:
    return step.input.restaurant_id


async def accepted(steplog: Kit) -> None:
    job = await steplog.run(wf, Signup(restaurant_id="r1"))
    assert_type(job, JobHandle[Progress])
    assert_type(job.result(account), str)
    assert_type(await steplog.run(plain), JobHandle[Context])
    assert_type(await steplog.resume(wf, job.job_id), JobHandle[Progress])
    assert_type(await steplog.assert_crash_safe(wf, Signup(restaurant_id="r1")), JobHandle[Progress])
    assert_type(steplog.run_blocking(wf, Signup(restaurant_id="r1")), JobHandle[Progress])
    assert_type(steplog.assert_crash_safe_blocking(plain, may_differ=[account, "context.n"]), JobHandle[Context])
    given = step(wf, Signup(restaurant_id="r1"), context=Progress(n=1))
    assert_type(given, LoneStep[Signup, Progress])
    assert_type(step(plain), LoneStep[NoInput, Context])
    assert_type(account(given), str)
