from __future__ import annotations

from pydantic import BaseModel

from steplog import Context, Step, Transaction, Workflow, result, use


class Signup(BaseModel, frozen=True):
    restaurant_id: str


class Progress(Context):
    n: int = 0


class Other(Context):
    m: int = 0


wf = Workflow("registration", input=Signup, context=Progress)


@wf.sub_step
def a(step: Step[Signup, Progress]) -> str:
    step.context.n = "x"  # refused
    step.context.unknown = 1  # refused
    return step.input.nothing  # refused


@wf.sub_step
def b(n: int = result(a)) -> int:  # refused
    return n


@wf.sub_step
def c(step: Step[Signup, Other]) -> int:  # refused
    return 1


@wf.sub_step()
def c2(step: Step[Signup, Other]) -> int:  # refused
    return 1


@wf.sub_step(when=lambda job: "yes")  # refused
def d() -> int:
    return 1


@wf.sub_step(when=lambda job: job.context.unknown)  # refused
def e() -> int:
    return 1


@wf.sub_step(after=["a"])  # refused
def f() -> int:
    return 1


def number() -> int:
    return 1


@wf.sub_step
def g(n: str = use(number), m: int = result(a, default=None)) -> int:  # refused
    return 1


@wf.sub_step
def h(step: Step[Signup, Other], tx: Transaction) -> int:  # refused
    return 1


@wf.sub_step
def i(step: Step[Signup, Progress], tx: Transaction) -> int:
    tx.commit()  # refused
    tx.execute("select 1", 1)  # refused
    tx.execute(1)  # refused
    return 1


@wf.sub_step
def j(tx: Transaction, n: int = result(a)) -> int:  # refused
    return 1


@wf.sub_step()
def k(tx: Transaction, n: str) -> int:
    return 1


approved = wf.wait_for_signal("approved", str)


@wf.sub_step
def m(n: int = result(approved)) -> int:  # refused
    return n


@wf.sub_step
def n(step: Step[Signup, Progress]) -> None:
    step.log(1)  # refused


wf.sleep(None)  # refused
wf.sleep("1h", after=["a"])  # refused
wf.wait_for_signal("go", str, timeout=[1])  # refused
wf.sub_step(deadline=[1])  # refused
Workflow("late", deadline=[1])  # refused
approved("anna")  # refused
wf.run()  # refused
wf.run("x")  # refused
a()  # refused
k("x")  # refused
b("x")  # refused
