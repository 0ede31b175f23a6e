from __future__ import annotations

from pydantic import BaseModel

from steplog import Context, Step, Workflow
from steplog.testing import Kit, step


class Signup(BaseModel, frozen=True):
    restaurant_id: str


class Progress(Context):
    n: int = 0


class Other(Context):
    m: int = 0


wf = Workflow("registration", input=Signup, context=Progress)


@wf.sub_step
def account(step: Step[Signup, Progress]) -> str:
    return step.input.restaurant_id


async def refused(steplog: Kit) -> None:
    await steplog.run(wf)  # refused
    await steplog.assert_crash_safe(wf)  # refused
    steplog.run_blocking(wf)  # refused
    steplog.assert_crash_safe_blocking(wf, Signup(restaurant_id="r1"), effects=3)  # refused
    job = await steplog.run(wf, Signup(restaurant_id="r1"))
    job.context.unknown = 1  # refused
    step(wf)  # refused
    step(wf, Signup(restaurant_id="r1"), context=Other())  # refused
    account(step(wf, Signup(restaurant_id="r1")).context)  # refused
