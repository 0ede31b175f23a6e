"""What differs between two JSON documents: as changes for people, and as an RFC 6902 JSON patch. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from steplog.eventstore.sealed import is_sealed

Path = tuple[str | int, ...]
"""Names of fields and places in lists, from the document's root on."""

Operation = Literal["add", "remove", "replace"]


@dataclass(frozen=True, slots=True)
class Change:
    """One place that differs; `before` is None for what was added, `after` for what was removed."""

    operation: Operation
    path: Path
    before: Any = None
    after: Any = None


def changes(before: Any, after: Any, path: Path = ()) -> Iterator[Change]:
    """What to change, in this order, to come from one document to the other; a sealed value changes as a whole."""
    if isinstance(before, dict) and isinstance(after, dict) and not is_sealed(before) and not is_sealed(after):
        yield from _of_objects(before, after, path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(before, after, path)
    elif not same(before, after):
        yield Change("replace", path, before, after)


def same(one: Any, other: Any) -> bool:
    """Whether both are the same JSON: unlike for `==`, 1 is neither 1.0 nor true, and -0.0 is not 0.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one is other or repr(one) == repr(other))


def patch(found: Iterable[Change]) -> list[dict[str, Any]]:
    """The changes as an RFC 6902 JSON patch."""
    return [
        {"op": change.operation, "path": pointer(change.path)}
        | ({} if change.operation == "remove" else {"value": change.after})
        for change in found
    ]


def pointer(path: Path) -> str:
    """The path as an RFC 6901 JSON pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _of_objects(before: dict[str, Any], after: dict[str, Any], path: Path) -> Iterator[Change]:
    for name, value in before.items():
        if name in after:
            yield from changes(value, after[name], (*path, name))
        else:
            yield Change("remove", (*path, name), before=value)
    for name, value in after.items():
        if name not in before:
            yield Change("add", (*path, name), after=value)


def _of_lists(before: list[Any], after: list[Any], path: Path) -> Iterator[Change]:
    """Between what both begin and end with: place by place, then what one of them has more."""
    shorter = min(len(before), len(after))
    start = next((at for at in range(shorter) if not same(before[at], after[at])), shorter)
    end = next((at for at in range(shorter - start) if not same(before[-1 - at], after[-1 - at])), shorter - start)
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    in_both = min(len(old), len(new))
    for at in range(in_both):
        yield from changes(old[at], new[at], (*path, start + at))
    for at in reversed(range(in_both, len(old))):
        yield Change("remove", (*path, start + at), before=old[at])
    for at in range(in_both, len(new)):
        yield Change("add", (*path, start + at), after=new[at])
