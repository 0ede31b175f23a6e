from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

from pydantic import BaseModel

from steplog import Context, JobHandle, Retry, Skip, Step, Workflow, result, use


class Signup(BaseModel, frozen=True):
    restaurant_id: str
    menu_url: str | None = None


class Progress(Context):
    code_files: list[str] = []
    owner_id: str | None = None


def client() -> Iterator[int]:
    yield 3


registration = Workflow("registration", input=Signup, context=Progress)
assert_type(registration, Workflow[Signup, Progress])
prepare = registration.phase("phase1")
register = registration.phase("phase2", parallel=4)


@prepare.sub_step(retry=Retry(attempts=3, wait="1s", max_wait="30s"), timeout="5m")
async def code_generation(step: Step[Signup, Progress]) -> list[str]:
    step.context.code_files = [step.input.restaurant_id]
    return step.context.code_files


@prepare.sub_step(optional=True, retry=2)
async def create_onboarding_user(step: Step[Signup, Progress], n: int = use(client)) -> str:
    return "x" * n


@register.sub_step
def restaurant_registration(step: Step[Signup, Progress]) -> str:
    return step.input.restaurant_id


@register.sub_step(when=lambda job: bool(job.context.code_files) or Skip("no code files"))
async def website_config(step: Step[Signup, Progress], rid: str = result(restaurant_registration)) -> None: ...


@register.sub_step(after=[website_config])
def bare(step: Step) -> int:
    return 1


@register.sub_step()
def maybe(
    user: str | None = result(create_onboarding_user, default=None), files: list[str] = result(code_generation)
) -> int:
    return 1


job = registration.run(Signup(restaurant_id="r"))
assert_type(job, JobHandle[Progress])
assert_type(job.result(website_config), None)
assert_type(job.result(code_generation), list[str])
assert_type(job.context.owner_id, str | None)
assert_type(maybe(), int)
hello = Workflow("hello")


@hello.sub_step(retry=3)
def fetch() -> str:
    return "world"


@hello.sub_step
def greet(name: str = result(fetch)) -> str:
    return f"hello {name}"


assert_type(hello.run().result(greet), str)
only_context = Workflow("c", context=Progress)
only_input = Workflow("i", input=Signup)
only_context.run()
