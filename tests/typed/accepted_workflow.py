from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

from pydantic import BaseModel

from steplog import Context, JobHandle, Retry, Skip, Step, Transaction, Workflow, result, use
from steplog.engine.definition import SubStep


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


@register.sub_step
def with_transaction(step: Step[Signup, Progress], tx: Transaction) -> str:
    tx.execute("insert into restaurants (id) values (%s)", [step.input.restaurant_id])
    tx.executemany("insert into dishes (id) values (%s)", [[1], [2]])
    return step.input.restaurant_id


@register.sub_step(timeout="5s")
def with_result_and_transaction(
    step: Step[Signup, Progress], tx: Transaction, rid: str = result(restaurant_registration)
) -> int:
    return tx.execute("update restaurants set open = true where id = %s", [rid]).rowcount


@register.sub_step
def transaction_alone(tx: Transaction) -> list[tuple[object, ...]]:
    return tx.execute("select 1").fetchall()


@register.sub_step(retry=2)
def transaction_and_result(tx: Transaction, rid: str = result(with_transaction)) -> int:
    return len(rid)


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


cool_down = register.sleep("1h", after=[website_config], when=lambda job: bool(job.context.code_files))
assert_type(cool_down, SubStep[[], None, None])
approved = register.wait_for_signal("approved", Signup, timeout="2d", default=Signup(restaurant_id="nobody"))
assert_type(approved, SubStep[[], Signup, Signup])
anything = registration.wait_for_signal("anything", name="any", optional=True)


@register.sub_step(after=[cool_down, anything], deadline="10m", timeout=30)
def ship(step: Step[Signup, Progress], by: Signup = result(approved), said: int = result(anything)) -> str:
    step.log("shipped", by.restaurant_id)
    step.raise_if_cancelled()
    return by.restaurant_id


job = registration.run(Signup(restaurant_id="r"))
assert_type(job.result(cool_down), None)
assert_type(job.result(approved), Signup)
assert_type(job, JobHandle[Progress])
assert_type(job.result(website_config), None)
assert_type(job.result(code_generation), list[str])
assert_type(job.context.owner_id, str | None)
assert_type(maybe(), int)
assert_type(job.result(with_transaction), str)
assert_type(job.result(with_result_and_transaction), int)
assert_type(job.result(transaction_alone), list[tuple[object, ...]])
assert_type(job.result(transaction_and_result), int)


def unit_test(tx: Transaction, step: Step[Signup, Progress]) -> None:
    assert_type(with_transaction(step, tx), str)
    assert_type(with_result_and_transaction(step, tx, rid="r"), int)
    assert_type(transaction_alone(tx), list[tuple[object, ...]])
    assert_type(transaction_and_result(tx, rid="r"), int)


hello = Workflow("hello")


@hello.sub_step(retry=3)
def fetch() -> str:
    return "world"


@hello.sub_step
def greet(name: str = result(fetch)) -> str:
    return f"hello {name}"


assert_type(hello.run().result(greet), str)
only_context = Workflow("c", context=Progress)
only_input = Workflow("i", input=Signup, deadline="1h")
assert_type(only_input, Workflow[Signup, Context])
only_context.run()
