"""Old schema versions brought up to date on read: `(type, schema_version) -> data of the next version`, chained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""By event type and the schema version that the function takes."""


def upcast(type: str, schema_version: int, data: dict[str, Any]) -> dict[str, Any]:
    """The data in the newest schema version of the type."""
    while step := UPCASTERS.get((type, schema_version)):
        data = step(data)
        schema_version += 1
    return data
