from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from steplog import Context, Skip, Step, Transaction, Workflow, result, use


class Menu(BaseModel, frozen=True):
    urls: list[str]


class Dish(BaseModel, frozen=True):
    id: str
    price: int


class Progress(Context):
    ids: list[str] = []


def client() -> int:
    return 3


menu = Workflow("menu", input=Menu, context=Progress)


@menu.sub_step
def list_dishes(step: Step[Menu, Progress]) -> list[Dish]:
    return []


@menu.map(items=result(list_dishes), key=lambda dish: dish.id, retry=3, parallel=10)
def import_dish(dish: Dish, step: Step[Menu, Progress]) -> int:
    return dish.price


@menu.map(items=result(list_dishes), key=lambda dish: dish.id, when=lambda job: bool(job.context.ids) or Skip("none"))
async def publish(dish: Dish, step: Step[Menu, Progress], factor: int = use(client)) -> str:
    return dish.id * factor


@menu.map(items=lambda job: job.input.urls, timeout="1m", deadline="1h", optional=True)
def fetch(url: str) -> bytes:
    return url.encode()


@menu.map(items=["a", "b"], after=[fetch], name="letters", on_interrupt="hold")
async def letter(letter: str, prices: list[int] = result(import_dish)) -> None: ...


@menu.map(items=range(3))
def in_transaction(number: int, tx: Transaction) -> int:
    return tx.execute("select 1").rowcount + number


@menu.map(items=result(import_dish), key=str)
def wider(price: float, step: Step) -> float:
    return price


@menu.sub_step
def total(prices: list[int] = result(import_dish), ids: list[str] | None = result(publish, default=None)) -> int:
    return sum(prices)


job = menu.run(Menu(urls=[]))
assert_type(job.result(import_dish), list[int])
assert_type(job.result(publish), list[str])
assert_type(job.result(fetch), list[bytes])
assert_type(job.result(letter), list[None])
assert_type(job.result(in_transaction), list[int])
assert_type(job.result(wider), list[float])


async def unit_test(step: Step[Menu, Progress], tx: Transaction) -> None:
    assert_type(import_dish(Dish(id="d", price=1), step), int)
    assert_type(await publish(Dish(id="d", price=1), step, factor=2), str)
    assert_type(fetch("url"), bytes)
    assert_type(in_transaction(1, tx), int)
