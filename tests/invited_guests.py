"""A workflow that runs over a list, for tests of what is shown of it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from steplog import Fatal, Workflow

ITEMS = 230


class Guest(BaseModel, frozen=True):
    name: str
    card: str = Field(default="card-canary-4111", repr=False)


guests = Workflow("guests")


@guests.map(
    items=[Guest(name=f"guest {n}/<b>") for n in range(ITEMS)], key=lambda guest: guest.name, optional=True, parallel=50
)
async def invite(guest: Guest) -> str:
    if guest.name.startswith("guest 7/"):
        raise Fatal(f"no answer to {guest.card}")
    return f"{guest.name} comes"


@guests.sub_step(after=[invite])
def close() -> None: ...
