from __future__ import annotations

from pydantic import BaseModel

from steplog import Context, Step, Workflow, result


class Menu(BaseModel, frozen=True):
    urls: list[str]


class Dish(BaseModel, frozen=True):
    id: str


class Progress(Context):
    ids: list[str] = []


class Other(Context):
    pass


menu = Workflow("menu", input=Menu, context=Progress)


@menu.sub_step
def list_dishes(step: Step[Menu, Progress]) -> list[Dish]:
    return []


@menu.sub_step
def count_dishes(step: Step[Menu, Progress]) -> int:
    return 1


@menu.map(items=result(list_dishes), key=lambda dish: dish.id)  # refused
def another_item(number: int, step: Step[Menu, Progress]) -> None: ...


@menu.map(items=result(list_dishes), key=lambda dish: dish.id)  # refused
def another_context(dish: Dish, step: Step[Menu, Other]) -> None: ...


@menu.map(items=result(list_dishes), key=lambda dish: dish.id)  # refused
def no_item() -> None: ...


@menu.map(items=["a"])
def length(letter: str) -> int:
    return len(letter)


@menu.sub_step
def another_result(lengths: list[str] = result(length)) -> None: ...  # refused


@menu.sub_step
def one_of_them(of_one: int = result(length)) -> None: ...  # refused


menu.map(items=result(count_dishes))  # refused
menu.map(items=list_dishes)  # refused
menu.map(items=lambda job: job.input.no_such_field)  # refused
menu.map(items=result(list_dishes), key=lambda dish: dish.no_such_field)  # refused
menu.map(items=["a"], parallel="many")  # refused
length(1)  # refused
