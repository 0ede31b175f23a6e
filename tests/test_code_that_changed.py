"""Jobs whose code changed while they waited: what no longer fits is named before anything is written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from steplog import Context, Workflow, result
from steplog.engine.errors import DataMismatch
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.eventstore.store import Store


class Order(BaseModel):
    dishes: int = 2


class OrderWithTable(BaseModel):
    dishes: int
    table: int


class OrderWithNote(BaseModel):
    dishes: int
    note: str = ""


class Kitchen(Context):
    cook: str | None = None


class RenamedKitchen(Context):
    chef: str | None = None


class LargerKitchen(Context):
    cook: str | None = None
    waiter: str | None = None


def declared(
    input_type: Any = Order, context: Any = Kitchen, returns: Any = int, *, mended: bool = True
) -> Workflow[Any, Any]:
    wf: Workflow[Any, Any] = Workflow("order", input=input_type, context=context)

    def count() -> Any:
        return 3

    count.__annotations__["return"] = returns
    counted = wf.sub_step(count)

    @wf.sub_step
    def cook(dishes: Any = result(counted)) -> Any:
        if not mended:
            raise ValueError("no eggs")
        return dishes

    return wf


def failed_job(store: Store) -> str:
    job = run_blocking(declared(mended=False), {"dishes": 3}, store=store)
    assert job.status == "failed"
    return job.job_id


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"input_type": OrderWithTable}, "input: table: Field required"),
        ({"context": RenamedKitchen}, "context: cook: Extra inputs are not permitted"),
        ({"returns": list[int]}, "result of main/count: Input should be a valid"),
    ],
)
def test_what_the_code_refuses_is_named_and_the_log_is_left_alone(
    store: Store, changed: dict[str, Any], named: str
) -> None:
    job_id = failed_job(store)
    before = store.head(job_id)

    with pytest.raises(DataMismatch, match=named):
        resume_blocking(declared(**changed), job_id, store, by="anna")

    assert store.head(job_id) == before


@pytest.mark.parametrize("changed", [{"input_type": OrderWithNote}, {"context": LargerKitchen}, {"returns": float}])
def test_a_job_goes_on_where_the_new_types_take_what_it_has(store: Store, changed: dict[str, Any]) -> None:
    assert resume_blocking(declared(**changed), failed_job(store), store, by="anna").status == "completed"
