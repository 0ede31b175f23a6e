"""The outside witness: starts workers as processes of their own, and compares what they did with what the log says."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from forked import processes
from registration_shape import EFFECTS, STATUSES
from witness_process import KillPoint, Place, work

from steplog.engine.history import load
from steplog.eventstore.codec import encode
from steplog.eventstore.events import Event
from steplog.eventstore.store import Store
from steplog.projections.evolve import evolve, fold
from steplog.projections.head import head_of
from steplog.projections.snapshot import snapshot
from steplog.projections.state import State


def run_until_killed(place: Place, kill: KillPoint) -> bool:
    """One worker process; whether it was killed, rather than finished."""
    process = processes.Process(target=work, args=(place, kill))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), f"the worker ended with {process.exitcode} at {kill}"
    return process.exitcode == -signal.SIGKILL


def run_to_the_end(place: Place) -> None:
    """A last worker that nothing disturbs."""
    assert not run_until_killed(place, KillPoint("never"))


def check(place: Place) -> None:
    """Every invariant that can be seen from outside, after the job has ended."""
    store = place.open()
    try:
        (job_id,) = store.job_of_key(None, "the-job")
        events = list(store.read(job_id))
        assert_acknowledged_is_stored(place.folder, events)
        assert_nothing_ran_after_its_completion(events)
        assert_effects_are_explained(place.folder, events)
        assert_replay_agrees(store, job_id, events)
        assert_outcome(load(store, job_id).state)
    finally:
        store.close()


def assert_acknowledged_is_stored(folder: Path, events: list[Event]) -> None:
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    stored = {event.version: event.event_id for event in events}
    for ack in noted(folder / "acks"):
        for version, event_id in ack["events"].items():
            assert stored[int(version)] == event_id, f"version {version} was acknowledged and is not in the log"


def assert_nothing_ran_after_its_completion(events: list[Event]) -> None:
    completed: set[str] = set()
    for event in events:
        key = f"{event.data.get('phase')}/{event.data.get('sub_step')}"
        assert not (event.type == "SubStepStarted" and key in completed), f"{key} started again at {event.version}"
        if event.type == "SubStepCompleted":
            completed.add(key)


def assert_effects_are_explained(folder: Path, events: list[Event]) -> None:
    """The same of the only job there is."""
    assert_explained(noted(folder / "effects"), events)


def assert_explained(effects: list[dict[str, Any]], events: list[Event]) -> None:
    """Each effect happened under a durable start, and an interruption each explains one more or one less."""
    happened = Counter(effect["key"] for effect in effects)
    interrupted = Counter(
        f"{event.data['phase']}/{event.data['sub_step']}" for event in events if event.type == "SubStepInterrupted"
    )
    keys: dict[str, set[str]] = {}
    for event in events:
        if event.type == "SubStepStarted":
            keys.setdefault(f"{event.data['phase']}/{event.data['sub_step']}", set()).add(event.data["idempotency_key"])
    for effect in effects:
        (key,) = keys[effect["key"].partition("@")[0]]
        assert effect["idempotency_key"].partition("@")[0] == key, f"{effect['key']} ran with another key"
    for name, times in EFFECTS.items():
        more = interrupted[name.partition("@")[0]]
        allowed = range(max(1, times - more), times + more + 1)
        assert happened[name] in allowed, f"{name} happened {happened[name]} times (allowed {allowed})"


def assert_replay_agrees(store: Store, job_id: str, events: list[Event]) -> None:
    whole = canonical(fold(events))
    step: State | None = None
    for event in events:
        step = evolve(step, event)
    assert step is not None
    assert canonical(step) == whole
    head = store.head(job_id)
    assert head.columns == head_of(step)
    assert (head.version, head.worker_id) == (len(events), None)


def assert_outcome(state: State) -> None:
    shown = snapshot(state)
    assert shown["status"] == "completed"
    statuses = {
        f"{phase}/{name}": step["status"]
        for phase, of_phase in shown["phases"].items()
        for name, step in of_phase["sub_steps"].items()
    }
    assert statuses == STATUSES
    assert shown["context"] == {"code_files": ["index.html", "site.css"], "user_created": True, "menu_imported": 3}
    assert shown["phases"]["phase3"]["sub_steps"]["option_sets"]["result"] == 3
    assert state["warnings"] == ["phase2/payment failed: 502"]


def canonical(state: State) -> bytes:
    return encode(dict(state), bytes_max=1 << 30)


def noted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
