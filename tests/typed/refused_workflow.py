from __future__ import annotations
from pydantic import BaseModel
from steplog import Context, Step, Workflow, result, Skip, use


class Signup(BaseModel, frozen=True):
    restaurant_id: str


class Progress(Context):
    n: int = 0


class Other(Context):
    m: int = 0


wf = Workflow("registration", input=Signup, context=Progress)


@wf.sub_step
def a(step: Step[Signup, Progress]) -> str:
    step.context.n = "x"  # E
    step.context.unknown = 1  # E
    return step.input.nothing  # E


@wf.sub_step
def b(n: int = result(a)) -> int:  # E
    return n


@wf.sub_step
def c(step: Step[Signup, Other]) -> int:  # E
    return 1


@wf.sub_step()
def c2(step: Step[Signup, Other]) -> int:  # E
    return 1


@wf.sub_step(when=lambda job: "yes")  # E
def d() -> int:
    return 1


@wf.sub_step(when=lambda job: job.context.unknown)  # E
def e() -> int:
    return 1


@wf.sub_step(after=["a"])  # E
def f() -> int:
    return 1


def number() -> int:
    return 1


@wf.sub_step
def g(n: str = use(number), m: int = result(a, default=None)) -> int:  # E
    return 1


wf.run()  # E
wf.run("x")  # E
a()  # E
b("x")  # E
