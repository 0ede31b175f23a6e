"""Bounds of fan-outs that a handful of items meets, so that what happens behind them happens in stories too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steplog.engine import chunks
from steplog.engine.deciding import fan_outs

_SHORT = (
    (chunks, "CHUNK_ITEMS", 2),
    (fan_outs, "CHUNKS_MAX", 2),
    (fan_outs, "WAITING_MAX", 2),
    (fan_outs, "NAMED_MAX", 1),
)


@contextmanager
def short_lists() -> Iterator[None]:
    """Two items in an event, two such events in an append, two items that wait before no further one begins."""
    real = [(module, name, getattr(module, name)) for module, name, _ in _SHORT]
    for module, name, bound in _SHORT:
        setattr(module, name, bound)
    try:
        yield
    finally:
        for module, name, bound in real:
            setattr(module, name, bound)
