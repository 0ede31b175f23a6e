"""Lists that grow with the data, cut into what one event holds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

CHUNK_ITEMS = 1000
"""How many items one event names."""
CHUNK_BYTES_MAX = 1 << 19
"""How many bytes of them it holds, if it is more than one."""


def end_of_chunk(items: Sequence[T], start: int, size: Callable[[T], int]) -> int:
    """Where the chunk ends that begins there."""
    left = CHUNK_BYTES_MAX
    end = min(start + CHUNK_ITEMS, len(items))
    for place in range(start, end):
        left -= size(items[place])
        if left < 0 and place > start:
            return place
    return end


def chunks_of(items: Sequence[T], size: Callable[[T], int]) -> list[Sequence[T]]:
    """All of them in chunks; of nothing one that is empty."""
    ends = [end_of_chunk(items, 0, size)]
    while ends[-1] < len(items):
        ends.append(end_of_chunk(items, ends[-1], size))
    return [items[start:end] for start, end in zip([0, *ends], ends, strict=False)]
