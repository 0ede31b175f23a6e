"""Fan-outs: a sub-step that is one handler's attempts for each item of a list that only the run knows. Pure.

The list is asked for once, as a condition is, and recorded before any item runs. Items start in their order, as many at
once as the fan-out and its phase allow; when the last one has settled, so has the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from steplog.engine.chunks import end_of_chunk
from steplog.engine.deciding.draft import Draft, error_of
from steplog.engine.facts import ErrorData, Listed
from steplog.eventstore import events as ev
from steplog.eventstore.clock import seconds_between
from steplog.eventstore.codec import encode
from steplog.projections.fan_out import Counts, counts_of, items_of
from steplog.projections.plan import Key, place_of, split_key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import Items, SubStepState

CHUNKS_MAX = 8
"""How many events of items one append has."""
WAITING_MAX = 1000
"""While so many items wait to run again, no further one begins: whatever they call would fail those too."""
NAMED_MAX = 3


def expand(draft: Draft, key: Key, listed: Sequence[Listed] | ErrorData) -> None:
    """Record the items, or as many as one append has room for; what made them no list fails the sub-step."""
    if isinstance(listed, dict):
        _fail(draft, key, listed)
        return
    sub_step = sub_step_of(draft.state, key)
    items = sub_step["items"]
    known = len(items["keys"]) if items and _goes_on(items, listed) else 0
    group = items["group"] if items and known else str(draft.state["version"] + 1)
    for chunk, last in _chunks(listed, known):
        phase, name = split_key(key)
        draft.emit(
            ev.SubStepExpanded(
                phase=phase,
                sub_step=name,
                generation=sub_step["generation"],
                items=[each._asdict() for each in chunk],
                group=group,
                last=last,
                when=True if draft.shape.sub_steps[key]["when"] else None,
            )
        )


def _goes_on(items: Items, listed: Sequence[Listed]) -> bool:
    """Whether what is recorded is how the list begins: an owner that died may have had another list."""
    return [*zip(items["keys"], items["inputs"], strict=True)] == [tuple(each) for each in listed[: len(items["keys"])]]


def _chunks(listed: Sequence[Listed], start: int) -> Iterator[tuple[Sequence[Listed], bool]]:
    """The next chunks from there on, and whether each is the last one."""
    for _ in range(CHUNKS_MAX):
        end = end_of_chunk(listed, start, _size)
        yield listed[start:end], end == len(listed)
        if end == len(listed):
            return
        start = end


def _size(item: Listed) -> int:
    return len(item.key) + len(encode(item.input))


def settle(draft: Draft, key: Key) -> bool:
    """Settle the group if nothing of it is to come; whether it has."""
    sub_step = sub_step_of(draft.state, key)
    items = sub_step["items"]
    assert items is not None, key
    counts = counts_of(items)
    stops = counts.failed and not draft.shape.sub_steps[key]["optional"]
    if counts.in_progress or counts.waiting or (counts.pending and not stops):
        return False
    if counts.failed:
        _fail(draft, key, _items_failed(sub_step, counts))
    else:
        phase, name = split_key(key)
        draft.emit(
            ev.SubStepCompleted(
                phase=phase,
                sub_step=name,
                generation=sub_step["generation"],
                attempt=1,
                seconds=_seconds(draft, sub_step),
            )
        )
    return True


def due_items(draft: Draft, key: Key, *, restarts_only: bool) -> Iterator[str]:
    """Items that may start now, in their order: those that run again, then those whose turn it is."""
    items = sub_step_of(draft.state, key)["items"]
    assert items is not None, key
    occupied = draft.situation.occupied
    for item in sorted(items["suspended"], key=items["places"].__getitem__):
        retry_at = items["active"][item]["retry_at"]
        if (retry_at is None or retry_at <= draft.now) and place_of(*split_key(key), item) not in occupied:
            yield item
    if restarts_only or len(items["suspended"]) >= WAITING_MAX:
        return
    if items["failed"] and not draft.shape.sub_steps[key]["optional"]:
        return
    while (its_turn := _next(draft, key)) is not None:
        if place_of(*split_key(key), its_turn) in occupied:
            return
        yield its_turn


def _next(draft: Draft, key: Key) -> str | None:
    """The item whose turn it is, after those that started meanwhile."""
    items = sub_step_of(draft.state, key)["items"]
    assert items is not None, key
    return items["keys"][items["next"]] if items["next"] < len(items["keys"]) else None


def _items_failed(sub_step: SubStepState, counts: Counts) -> ErrorData:
    failed = (item for item in items_of(sub_step) if item.state["status"] == "failed")
    named = [f"{item.key}: {_said(item.state['error'])}" for item, _ in zip(failed, range(NAMED_MAX), strict=False)]
    more = f" and {counts.failed - len(named)} more" if counts.failed > len(named) else ""
    return error_of("ItemsFailed", f"{counts.failed} of {counts.total} items failed: {'; '.join(named)}{more}")


def _said(error: dict[str, Any] | None) -> str:
    return f"{(error or {}).get('type')} {(error or {}).get('message')}"[:200]


def _fail(draft: Draft, key: Key, error: ErrorData) -> None:
    phase, name = split_key(key)
    sub_step = sub_step_of(draft.state, key)
    draft.emit(
        ev.SubStepFailed(
            phase=phase,
            sub_step=name,
            generation=sub_step["generation"],
            attempt=1,
            error=error,
            seconds=_seconds(draft, sub_step),
        )
    )


def _seconds(draft: Draft, sub_step: SubStepState) -> float:
    return seconds_between(sub_step["started_at"] or draft.now, draft.now)
