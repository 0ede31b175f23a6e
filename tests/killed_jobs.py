"""Jobs that are killed by a real SIGKILL while they undo, or run over a list, and what their outside witness knows."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Literal

from forked import processes
from witness_process import SETTINGS, Effects, KillPoint, Place, WitnessedStore

from steplog import Context, Fatal, Retry, Step, Workflow, result
from steplog.engine.jobs import resume_blocking, run_blocking

Note = Callable[[str, str], None]
"""Called by a handler as its effect happens: with what it did, and its idempotency key."""
Build = Callable[[Note], Workflow[Any, Any]]

AGAIN = Retry(attempts=2, wait=0, jitter=0)
DISHES = [f"dish-{number}" for number in range(6)]


def work(build: Build, place: Place, kill: KillPoint) -> None:
    """Run the job, or resume it if it is there, until it ends or the kill point is reached."""
    store = place.open()
    effects = Effects(place.folder, kill)
    workflow = build(effects.happen)
    witnessed: Any = WitnessedStore(store, place.folder, kill)
    jobs = store.job_of_key(None, "the-job")
    if not jobs:
        run_blocking(workflow, key="the-job", store=witnessed, settings=SETTINGS)
    elif store.head(jobs[0]).columns.status not in ("completed", "failed"):
        resume_blocking(workflow, jobs[0], witnessed, by="witness", settings=SETTINGS)
    store.close()


def is_killed(build: Build, place: Place, kind: Literal["before", "after", "effect", "never"], count: int = 0) -> bool:
    """One worker process; whether it was killed, rather than finished."""
    process = processes.Process(target=work, args=(build, place, KillPoint(kind, count)))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), f"the worker ended with {process.exitcode} at {kind} {count}"
    return process.exitcode == -signal.SIGKILL


def booking(note: Note) -> Workflow[Any, Any]:
    """Three bookings one after the other; then the payment fails, and each is given back, one at its second attempt."""
    wf = Workflow("booking", compensate_on=["failed"])
    book, last = wf.phase("book"), wf.phase("pay")

    @book.sub_step
    def flight(step: Step) -> str:
        note("flight", step.idempotency_key)
        return "F1"

    @book.sub_step(after=[flight])
    async def hotel(step: Step) -> str:
        note("hotel", step.idempotency_key)
        return "H1"

    @book.sub_step(after=[hotel])
    def car(step: Step) -> str:
        note("car", step.idempotency_key)
        return "C1"

    @book.compensate(flight)
    async def give_flight_back(step: Step, number: str = result(flight)) -> None:
        note("undo flight", step.idempotency_key)

    @book.compensate(hotel, retry=AGAIN)
    def give_hotel_back(step: Step, number: str = result(hotel)) -> None:
        note("undo hotel", step.idempotency_key)
        if step.attempt == 1:
            raise ConnectionError("nobody answers")

    @book.compensate(car)
    def give_car_back(step: Step, number: str = result(car)) -> None:
        note("undo car", step.idempotency_key)

    @last.sub_step
    def pay(step: Step) -> None:
        raise Fatal("no money")

    return wf


class Imported(Context):
    total: int = 0


def menu(note: Note) -> Workflow[Any, Any]:
    """A list of dishes, each imported, some at their second attempt, and priced, one of them in vain."""
    wf = Workflow("menu", context=Imported)

    @wf.sub_step
    def list_dishes() -> list[str]:
        return DISHES

    @wf.map(items=result(list_dishes), retry=AGAIN, parallel=3)
    def import_dish(dish: str, step: Step[Any, Imported]) -> str:
        note(f"import_dish[{dish}]", step.idempotency_key)
        if step.attempt == 1 and dish in DISHES[2:4]:
            raise ConnectionError("nobody answers")
        return dish.upper()

    @wf.map(items=result(list_dishes), optional=True, parallel=2)
    async def price(dish: str, step: Step[Any, Imported]) -> int:
        note(f"price[{dish}]", step.idempotency_key)
        if dish == DISHES[4]:
            raise Fatal("priceless")
        return len(dish)

    @wf.sub_step(after=[price])
    def count(step: Step[Any, Imported], dishes: list[str] = result(import_dish)) -> list[str]:
        step.context.total = len(dishes)
        return dishes

    return wf
