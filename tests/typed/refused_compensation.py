from __future__ import annotations

from steplog import Context, Step, Workflow, result


class Trip(Context):
    hotel: str | None = None


class Other(Context):
    pass


trip = Workflow("trip", context=Trip, compensate_on=["failed"])
Workflow("ends", compensate_on=["completed"])  # refused


@trip.sub_step
def flight() -> str:
    return "F"


@trip.compensate(flight)
def another_result(number: int = result(flight)) -> None: ...  # refused


@trip.compensate(flight)  # refused
def another_context(step: Step[object, Other]) -> None: ...


trip.compensate("flight")  # refused
trip.compensate(flight, retry="often")  # refused
