"""Items of a fan-out in the state: how events change them, and what they come to as a group. Pure.

An item that waits for its turn is a key and an input; one that has settled is a small record in a page; only those in
between have a whole state. So ten thousand items cost what ten thousand are, and an event costs what it changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, cast

from steplog.projections.state import (
    SETTLED,
    Items,
    PhaseState,
    SettledItem,
    State,
    SubStepState,
    SubStepStatus,
    new_sub_step,
)

PAGE_ITEMS = 256
"""Settled items that are kept, and copied, together."""

_KEPT = tuple(SettledItem.__annotations__)
_OF_ONE_JOB = ("started_version", "cursor", "draft")
"""What a fork does not take over of an item that is done."""


class Item(NamedTuple):
    """One item as people see it."""

    place: int
    key: str
    input: Any
    state: SubStepState


class Counts(NamedTuple):
    """A group in numbers; `waiting` are those that will run again."""

    total: int
    completed: int
    failed: int
    skipped: int
    in_progress: int
    waiting: int
    pending: int


# --- what rules look at ----------------------------------------------------------------------------------------------


def is_expanded(sub_step: SubStepState) -> bool:
    """Whether all of its items are known."""
    return sub_step["items"] is not None and sub_step["items"]["complete"]


def attempts_of(sub_step: SubStepState) -> int:
    """How many attempts of a sub-step with the status `in_progress` really are: of a fan-out, those of its items."""
    return 1 if sub_step["items"] is None else len(sub_step["items"]["in_progress"])


def attempts_in(phase: PhaseState) -> int:
    """How many attempts of the phase are in progress."""
    return sum(attempts_of(phase["sub_steps"][name]) for name in phase["in_progress"])


def items_in(state: State) -> int:
    """How many items the job has."""
    groups = (name for phase in state["phases"].values() for name in phase["sub_steps"].values())
    return sum(len(group["items"]["keys"]) for group in groups if group["items"] is not None)


def expanded_in(phase: PhaseState) -> Iterator[Items]:
    """The items of each fan-out of the phase that is in progress."""
    return (items for name in phase["in_progress"] if (items := phase["sub_steps"][name]["items"]) is not None)


def suspended_in(phase: PhaseState) -> list[str]:
    """Names of what has begun and will run again: sub-steps, and fan-outs of which an item will."""
    groups = (
        name for name in phase["in_progress"] if (items := phase["sub_steps"][name]["items"]) and items["suspended"]
    )
    return [*phase["suspended"], *groups]


Part = tuple[str | None, SubStepState]
"""A sub-step, or an item of it by its key."""


def suspended_of(sub_step: SubStepState) -> Iterator[Part]:
    """The sub-step, or each item of it that will run again."""
    items = sub_step["items"]
    if items is None:
        yield None, sub_step
    else:
        yield from ((key, items["active"][key]) for key in items["suspended"])


def running_of(sub_step: SubStepState) -> Iterator[Part]:
    """The sub-step, or each item of it that is in progress."""
    items = sub_step["items"]
    if items is None:
        yield None, sub_step
    else:
        yield from ((key, items["active"][key]) for key in items["in_progress"])


def next_item_due(items: Items) -> Iterator[str]:
    """The instants at which items run again."""
    return (due for key in items["suspended"] if (due := items["active"][key]["retry_at"]))


def is_active(sub_step: SubStepState, key: str) -> bool:
    """Whether the item has begun and not settled."""
    return sub_step["items"] is not None and key in sub_step["items"]["active"]


def counts_of(items: Items) -> Counts:
    """The group in numbers."""
    settled = items["completed"] + items["failed"] + items["skipped"]
    total, running, waiting = len(items["keys"]), len(items["in_progress"]), len(items["suspended"])
    return Counts(
        total,
        items["completed"],
        items["failed"],
        items["skipped"],
        running,
        waiting,
        pending=total - settled - running - waiting,
    )


def item_of(sub_step: SubStepState, key: str) -> SubStepState:
    """The item as it is. Raises KeyError where there is none of that key."""
    items = _items(sub_step)
    return items["active"].get(key) or _at(sub_step, _place(items, key))


def items_of(sub_step: SubStepState, after: int = -1) -> Iterator[Item]:
    """The items in their order, from behind that place on."""
    items = _items(sub_step)
    for place in range(after + 1, len(items["keys"])):
        key = items["keys"][place]
        yield Item(place, key, items["inputs"][place], items["active"].get(key) or _at(sub_step, place))


def page_of(sub_step: SubStepState, status: str | None, after: int, limit: int) -> tuple[list[Item], bool]:
    """So many items from behind that place on, of one status if one is given; and whether there are more."""
    found = [*islice((item for item in items_of(sub_step, after) if status in (None, item.state["status"])), limit + 1)]
    return found[:limit], len(found) > limit


def results_of(sub_step: SubStepState) -> Any:
    """What a completed sub-step returned: of a fan-out, what its items did, in their order, unless a person said."""
    items = sub_step["items"]
    if items is None or sub_step["result"] is not None:
        return sub_step["result"]
    done = (record for page in items["settled"] for record in page)
    return [record.get("result") for record in done if record and record["status"] == "completed"]


def latest_generation(sub_step: SubStepState) -> int:
    """The highest of the group's and its items': one that is higher was never given to any of them."""
    items = items_of(sub_step) if sub_step["items"] is not None else ()
    return max((sub_step["generation"], *(item.state["generation"] for item in items)))


# --- how events change them: the sub-step itself is owned -------------------------------------------------------------


def expand(sub_step: SubStepState, data: dict[str, Any]) -> None:
    """Take in some of the items; a chunk of another group begins anew."""
    items = sub_step["items"]
    if items is None or items["group"] != data["group"]:
        items = _no_items(data["group"])
    sub_step["items"] = {
        **items,
        "keys": items["keys"] + [item["key"] for item in data["items"]],
        "inputs": items["inputs"] + [item.get("input") for item in data["items"]],
        "complete": data["last"],
    }


def inherit(sub_step: SubStepState, data: dict[str, Any], version: int) -> None:
    """Take in items of the job that this one was forked from, with what had become of those that had settled."""
    known = len(sub_step["items"]["keys"]) if sub_step["items"] else 0
    sub_step["generation"] = sub_step["key_generation"] = data["generation"]
    expand(sub_step, {**data, "last": True})
    items = _items(sub_step)
    for place, item in enumerate(data["items"], known):
        if "status" in item:
            kept = {name: value for name, value in item.items() if name not in ("key", "input")}
            _keep(items, place, cast(SettledItem, {**kept, "started_version": version}))
            _count(items, item["status"], 1)
    _go_on(items)


def to_inherit(sub_step: SubStepState) -> list[dict[str, Any]]:
    """Its items as a fork takes them in: those that have not settled, or have failed, are pending again."""
    return [_as_inherited(item) for item in items_of(sub_step)]


def _as_inherited(item: Item) -> dict[str, Any]:
    named = {"key": item.key, "input": item.input}
    if item.state["status"] not in ("completed", "skipped"):
        return named
    record = _record(item.state, new_sub_step())
    return {**named, **{name: value for name, value in record.items() if name not in _OF_ONE_JOB}}


def move(sub_step: SubStepState, key: str, status: SubStepStatus) -> SubStepState:
    """Give an item another status; its state, owned. Once it is as the event says, `put_away` keeps it."""
    item = begin(sub_step, key)
    items = _items(sub_step)
    item["status"] = status
    items["in_progress"] = _with(items["in_progress"], key, wanted=status == "in_progress")
    items["suspended"] = _with(items["suspended"], key, wanted=status in ("retrying", "interrupted"))
    return item


def begin(sub_step: SubStepState, key: str) -> SubStepState:
    """An item's state, owned, from now on among the active ones."""
    items = sub_step["items"] = _items(sub_step).copy()
    known = items["active"].get(key)
    if known is None:
        place = _place(items, key)
        item = _at(sub_step, place)
        _count(items, item["status"], -1)
        items["places"] = {**items["places"], key: place}
        _keep(items, place, None)
    else:
        item = known.copy()
    items["active"] = {**items["active"], key: item}
    _go_on(items)
    return item


def put_away(sub_step: SubStepState, key: str) -> None:
    """Keep what is worth keeping of an item that has settled; one that has not stays."""
    items = _items(sub_step)
    item = items["active"][key]
    if item["status"] not in SETTLED:
        return
    place = items["places"][key]
    _keep(items, place, _record(item, new_item(sub_step)))
    _make_inactive(items, key)
    items["latest"] = [key, place]
    _count(items, item["status"], 1)
    _go_on(items)


def stop(sub_step: SubStepState) -> None:
    """The group was settled as a whole: what was in progress is that no more."""
    for key in sub_step["items"]["in_progress"] if sub_step["items"] else ():
        move(sub_step, key, "interrupted")


def try_again(sub_step: SubStepState, at: str | None = None) -> None:
    """Let the failed items, and those that wait, run again with a new budget: at once, or at that instant."""
    items = sub_step["items"] = _items(sub_step).copy()
    items["settled"] = [[_pending_again(record) for record in page] for page in items["settled"]]
    items["failed"] = 0
    items["next"] = 0
    _go_on(items)
    for key in items["suspended"]:
        item = begin(sub_step, key)
        item["failures"] = item["interruptions"] = 0
        item["reason"] = None
        item["retry_at"] = at or item["retry_at"]


def count_anew(sub_step: SubStepState) -> None:
    """Forget how often items that wait were interrupted: a person has let the job go on."""
    for key in sub_step["items"]["suspended"] if sub_step["items"] else ():
        item = begin(sub_step, key)
        item["interruptions"] = 0
        item["reason"] = None


def begin_anew(sub_step: SubStepState, keys: list[str], *, same_key: bool) -> None:
    """Put single items back to pending, in a generation of their own."""
    places = {key: place for place, key in enumerate(_items(sub_step)["keys"])}
    for key in keys:
        items = sub_step["items"] = _items(sub_step).copy()
        old = items["active"].get(key) or _at(sub_step, places[key])
        if key in items["active"]:
            _make_inactive(items, key)
        fresh = new_item(sub_step)
        fresh["attempts"] = old["attempts"]
        fresh["generation"] = old["generation"] + 1
        fresh["key_generation"] = old["key_generation"] if same_key else fresh["generation"]
        _count(items, old["status"], -1)
        _keep(items, places[key], _record(fresh, new_item(sub_step)))
        items["next"] = min(items["next"], places[key])


def new_item(sub_step: SubStepState) -> SubStepState:
    """An item nothing has happened to: of the group's generation."""
    fresh = new_sub_step()
    fresh["generation"] = sub_step["generation"]
    fresh["key_generation"] = sub_step["key_generation"]
    return fresh


# --- parts of these --------------------------------------------------------------------------------------------------


def _no_items(group: str) -> Items:
    return Items(
        group=group,
        complete=False,
        keys=[],
        inputs=[],
        next=0,
        active={},
        places={},
        in_progress={},
        suspended={},
        settled=[],
        completed=0,
        failed=0,
        skipped=0,
        latest=[],
    )


def _items(sub_step: SubStepState) -> Items:
    if sub_step["items"] is None:
        raise KeyError("a sub-step without items")
    return sub_step["items"]


def _at(sub_step: SubStepState, place: int) -> SubStepState:
    """The state of an item that is not active."""
    item = new_item(sub_step)
    record = _kept(_items(sub_step), place)
    if record:
        item.update(cast(SubStepState, record))
    return item


def _place(items: Items, key: str) -> int:
    """Almost always the next one, or the last that settled; else it is looked for."""
    place = items["next"]
    if place < len(items["keys"]) and items["keys"][place] == key:
        return place
    if items["latest"] and items["latest"][0] == key:
        return int(items["latest"][1])
    try:
        return items["keys"].index(key)
    except ValueError:
        raise KeyError(f"no item {key!r}") from None


def _kept(items: Items, place: int) -> SettledItem | None:
    page, row = divmod(place, PAGE_ITEMS)
    pages = items["settled"]
    return pages[page][row] if page < len(pages) and row < len(pages[page]) else None


def _keep(items: Items, place: int, record: SettledItem | None) -> None:
    number, row = divmod(place, PAGE_ITEMS)
    pages = items["settled"]
    if record is None and (number >= len(pages) or row >= len(pages[number])):
        return
    pages = items["settled"] = [*pages, *([] for _ in range(len(pages), number + 1))]
    page = pages[number] = [*pages[number], *(None for _ in range(len(pages[number]), row + 1))]
    page[row] = record


def _record(item: SubStepState, fresh: SubStepState) -> SettledItem:
    kept = {name: item[name] for name in _KEPT if item[name] != fresh[name]}  # type: ignore[literal-required]  # keys of both, held by a test
    return cast(SettledItem, {"status": item["status"], **kept})


def _pending_again(record: SettledItem | None) -> SettledItem | None:
    if record is None or record["status"] != "failed":
        return record
    return cast(SettledItem, {**record, "status": "pending", "failures": 0, "interruptions": 0})


def _make_inactive(items: Items, key: str) -> None:
    items["active"] = {other: state for other, state in items["active"].items() if other != key}
    items["places"] = {other: place for other, place in items["places"].items() if other != key}
    items["in_progress"] = _with(items["in_progress"], key, wanted=False)
    items["suspended"] = _with(items["suspended"], key, wanted=False)


def _count(items: Items, status: SubStepStatus, step: int) -> None:
    if status == "completed" or status == "failed" or status == "skipped":
        items[status] += step


def _go_on(items: Items) -> None:
    """Put `next` to the first item that has neither begun nor settled."""
    keys, place = items["keys"], items["next"]
    while place < len(keys) and not _is_to_come(items, place, keys[place]):
        place += 1
    items["next"] = place


def _is_to_come(items: Items, place: int, key: str) -> bool:
    record = _kept(items, place)
    return key not in items["active"] and (record is None or record["status"] not in SETTLED)


def _with(names: dict[str, bool], name: str, *, wanted: bool) -> dict[str, bool]:
    if wanted == (name in names):
        return names
    return {**names, name: True} if wanted else {other: True for other in names if other != name}
