"""Workflows that take an order: one that any crash leaves as it was meant, and others with a mistake each."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from pydantic import BaseModel

from steplog import Context, Retry, Step, Transaction, Workflow, result, use


class Order(BaseModel, frozen=True):
    dish: str = "soup"
    amount: int = 3


class Progress(Context):
    receipt: str = ""
    seats: list[int] = []


class Bank:
    """Honours idempotency keys, as the real one does."""

    def __init__(self) -> None:
        self.charges: list[tuple[str, int]] = []
        self._known: dict[str, str] = {}

    def charge(self, dish: str, amount: int, key: str) -> str:
        if key not in self._known:
            self._known[key] = f"receipt of {key}"
            self.charges.append((dish, amount))
        return self._known[key]


def open_bank() -> Bank:
    raise ConnectionError("no test has the real bank")


OrderStep = Step[Order, Progress]
STOCK = "create table stock (dish text primary key, taken integer not null)"

safe = Workflow("safe", input=Order, context=Progress)
taking, serving = safe.phase("taking"), safe.phase("serving")


@taking.sub_step(retry=Retry(attempts=3, wait="1h", jitter=0))
async def charge(step: OrderStep, bank: Bank = use(open_bank)) -> str:
    if step.attempt == 1:
        raise ConnectionError("the first time")
    step.context.receipt = bank.charge(step.input.dish, step.input.amount, step.idempotency_key)
    return step.context.receipt


@taking.sub_step
def seat(step: OrderStep) -> int:
    for chair in range(step.cursor or 0, step.input.amount):
        step.context.seats.append(chair)
        step.checkpoint(chair + 1)
    return len(step.context.seats)


@taking.sub_step
def reserve(step: OrderStep, tx: Transaction) -> None:
    tx.execute("insert into stock values (%s, %s)", [f"{step.input.dish} {step.job_id}", step.input.amount])


@serving.sub_step(after=[])
def serve(receipt: str = result(charge), seats: int = result(seat)) -> str:
    return f"{seats} seats for {receipt}"


# --- mistakes --------------------------------------------------------------------------------------------------------

forgetful = Workflow("forgetful", input=Order, context=Progress)
session: str | None = None


@forgetful.sub_step
def log_in() -> None:
    global session
    session = "token"


@forgetful.sub_step(after=[log_in])
def order() -> str:
    return f"ordered with {session}"


careless = Workflow("careless", input=Order, context=Progress)


@careless.sub_step
def pay(step: OrderStep, bank: Bank = use(open_bank)) -> None:
    bank.charge(step.input.dish, step.input.amount, key=str(uuid4()))


impatient = Workflow("impatient", input=Order, context=Progress)


@impatient.sub_step
def seat_again(step: OrderStep) -> list[int]:
    for chair in range(step.input.amount):  # from the beginning, whatever the cursor says
        step.context.seats.append(chair)
        step.checkpoint(chair + 1)
    return step.context.seats


possessive = Workflow("possessive", input=Order, context=Progress)


class Lock:
    """A lock of somebody else's."""

    def __init__(self) -> None:
        self.holder: str | None = None


def open_lock() -> Lock:
    raise ConnectionError("no test has the real lock")


@possessive.sub_step
async def cook(step: OrderStep, lock: Lock = use(open_lock)) -> None:
    """Frees what it took in a `finally`, which a killed process never reaches."""
    if lock.holder is not None:
        raise RuntimeError(f"held by {lock.holder}")
    lock.holder = step.name
    try:
        await step.checkpoint("half done")
    finally:
        lock.holder = None


waiting = Workflow("waiting", input=Order, context=Progress)


@waiting.sub_step
async def cook_later(step: OrderStep, lock: Lock = use(open_lock)) -> None:
    """The same, and whoever comes later waits for what was never freed."""
    while lock.holder is not None:
        await asyncio.Event().wait()
    lock.holder = step.name
    try:
        await step.checkpoint("half done")
    finally:
        lock.holder = None


moody = Workflow("moody", input=Order, context=Progress)


@moody.sub_step
def draw(step: OrderStep) -> str:
    step.context.receipt = str(uuid4())
    return str(uuid4())
