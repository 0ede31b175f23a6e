"""A worker killed while it undoes a job, or runs over a list, leaves nothing out and begins nothing anew.

What happened outside is in the witness's file of effects; the log is held against that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest
from killed_jobs import DISHES, Build, booking, is_killed, menu
from witness import assert_acknowledged_is_stored, assert_replay_agrees, noted
from witness_process import Place

from steplog.engine.history import load
from steplog.eventstore.events import Event
from steplog.eventstore.postgres import PostgresStore
from steplog.projections.state import State

EVENTS_MAX: dict[Build, int] = {booking: 27, menu: 56}
"""More than each has: past its end the kill point is never reached, and the run says so."""

UNDOING = [("before", n) for n in (17, 20, 23)] + [("after", n) for n in (16, 19, 22)] + [("effect", n) for n in (4, 5)]
LISTS = [("before", n) for n in (8, 20, 31)] + [("after", n) for n in (7, 15, 26)] + [("effect", n) for n in (2, 6, 11)]

SILENT = {"pay", "list_dishes", "import_dish", "price", "count"}
"""What has no effect of its own."""


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(tmp_path)
    store: PostgresStore = request.getfixturevalue("postgres_store")
    dsn: str = request.getfixturevalue("postgres_dsn")
    return Place(tmp_path, dsn, request.getfixturevalue("postgres_schema")) if store else Place(tmp_path)


@pytest.mark.parametrize(("kind", "count"), UNDOING)
def test_undoing_killed_once_goes_on_where_it_was(place: Place, kind: str, count: int) -> None:
    assert kill(booking, place, kind, count)
    assert not is_killed(booking, place, "never")
    check_undone(place)


def test_undoing_killed_at_every_step_of_its_recovery_ends(place: Place) -> None:
    kills = [kill(booking, place, kind, count) for kind, count in (("after", 17), ("effect", 1), ("after", 21))]
    kills += [kill(booking, place, "effect", 1) for _ in range(3)]
    assert sum(kills) >= 4
    assert not is_killed(booking, place, "never")
    check_undone(place)


@pytest.mark.parametrize(("kind", "count"), LISTS)
def test_a_list_killed_once_goes_on_where_it_was(place: Place, kind: str, count: int) -> None:
    assert kill(menu, place, kind, count)
    assert not is_killed(menu, place, "never")
    check_list(place)


@pytest.mark.heavy
@pytest.mark.parametrize(("build", "kind", "count"), [
    (build, kind, count)
    for build, events_max in EVENTS_MAX.items()
    for kind in ("before", "after", "effect")
    for count in range(1, events_max)
])  # fmt: skip
def test_killed_at_each_boundary_it_ends_as_if_nothing_had_been(
    place: Place, build: Build, kind: str, count: int
) -> None:
    if kill(build, place, kind, count):
        assert not is_killed(build, place, "never")
    CHECKS[build](place)


def kill(build: Build, place: Place, kind: str, count: int) -> bool:
    return is_killed(build, place, kind, count)  # type: ignore[arg-type]  # the parameters are the kinds


# --- what the witness knows ------------------------------------------------------------------------------------------


def check_undone(place: Place) -> None:
    """Each booking was given back under one key, the last booked first, each to its end before the next."""
    state = check(place)
    assert (state["status"], (state["error"] or {})["message"]) == ("failed", "no money")
    undone = [effect["key"] for effect in noted(place.folder / "effects") if effect["key"].startswith("undo")]
    assert [each for each, _ in groupby(undone)] == ["undo car", "undo hotel", "undo flight"]
    compensations = [step["compensation"] for step in state["phases"]["book"]["sub_steps"].values()]
    assert [each and each["status"] for each in compensations] == ["completed"] * 3


def check_list(place: Place) -> None:
    """Each item was done under a key of its own; results are in order."""
    state = check(place)
    steps = state["phases"]["main"]["sub_steps"]
    assert (state["status"], state["context"]["total"]) == ("completed", len(DISHES))
    assert steps["count"]["result"] == [dish.upper() for dish in DISHES]
    items = steps["price"]["items"]
    assert items is not None
    assert (items["completed"], items["failed"]) == (len(DISHES) - 1, 1)


CHECKS: dict[Build, Callable[[Place], None]] = {booking: check_undone, menu: check_list}


def check(place: Place) -> State:
    """The state, once what happened outside is explained by the log, and the log by what it says itself."""
    store = place.open()
    try:
        (job_id,) = store.job_of_key(None, "the-job")
        events = list(store.read(job_id))
        assert_acknowledged_is_stored(place.folder, events)
        assert_effects_are_explained(place.folder, events)
        assert_replay_agrees(store, job_id, events)
        return load(store, job_id).state
    finally:
        store.close()


def assert_effects_are_explained(folder: Path, events: list[Event]) -> None:
    """Each happened once per attempt that began and was not cut off, under one key; nothing began after its end."""
    happened = Counter(effect["key"] for effect in noted(folder / "effects"))
    started = Counter(map(doing, of_kind(events, "Started")))
    cut_off = Counter(map(doing, of_kind(events, "Interrupted")))
    ended = Counter(map(doing, of_kind(events, "Completed")))
    assert happened.keys() <= started.keys()
    for key, times in started.items():
        least = 0 if key in SILENT else times - cut_off[key]
        assert least <= happened[key] <= times, f"{key} happened {happened[key]} times"
    assert set(ended.values()) == {1}, "each ends once"
    assert {key for key in started if key.startswith("undo")} <= ended.keys(), "what is undone is undone to its end"
    keys = {(doing(event), event.data["idempotency_key"]) for event in of_kind(events, "Started")}
    assert {(effect["key"], effect["idempotency_key"]) for effect in noted(folder / "effects")} <= keys
    assert len(keys) == len({doing for doing, _ in keys}) == len({key for _, key in keys})
    begun: set[str] = set()
    for event in events:
        if event.type.endswith("Completed"):
            begun.add(doing(event))
        assert not (event.type.endswith("Started") and doing(event) in begun), f"{doing(event)} began again"


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.type in (f"SubStep{kind}", f"Compensation{kind}")]


def doing(event: Event) -> str:
    """What is done, as its effect is noted."""
    if event.type.startswith("Compensation"):
        return f"undo {event.data['sub_step']}"
    item = event.data.get("item")
    return f"{event.data.get('sub_step')}[{item}]" if item else str(event.data.get("sub_step", event.type))
