from __future__ import annotations

from typing import assert_type

from steplog import Context, Retry, Step, Transaction, Workflow, result


class Trip(Context):
    hotel: str | None = None


trip = Workflow("trip", context=Trip, compensate_on=["failed", "cancelled"])
either = Workflow("either", compensate_on=("failed",))
phase = trip.phase("book")


@phase.sub_step
def flight() -> str:
    return "F"


@phase.sub_step
async def hotel(step: Step) -> int:
    return 1


@phase.map(items=[1, 2])
def cars(car: int) -> str:
    return str(car)


@phase.compensate(flight, retry=Retry(attempts=3), timeout="1m")
def cancel_flight(number: str = result(flight)) -> None: ...


@phase.compensate(hotel)
async def cancel_hotel(step: Step, number: int = result(hotel), of: str | None = result(flight, default=None)) -> None:
    assert_type(step.idempotency_key, str)


@trip.compensate(cars)
def cancel_cars(tx: Transaction, numbers: list[str] = result(cars)) -> None: ...


assert_type(cancel_flight("F"), None)
