"""Logs of every released version read as they always did, and logs of a version to come are refused untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from steplog.engine.moving import export, import_jobs
from steplog.eventstore import rows, upcasters
from steplog.eventstore.chain import Position, link, seal
from steplog.eventstore.errors import DamagedLog, UnknownEvent
from steplog.eventstore.events import ContextChanged, JobCreated
from steplog.eventstore.rows import Row, read_rows
from steplog.eventstore.store import Store
from steplog.projections.evolve import fold
from steplog.projections.snapshot import snapshot
from steplog.testing.clock import VirtualClock

LOGS = sorted(Path(__file__).with_name("golden").glob("*.jsonl"))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_log_of_a_released_version_folds_to_what_it_did(store: Store, path: Path) -> None:
    (done,) = import_jobs(store, path.read_bytes().splitlines(keepends=True))
    shown = snapshot(fold(store.read(done.job_id)))
    golden = orjson.loads(path.with_suffix(".snapshot.json").read_bytes())
    assert {name: shown[name] for name in golden} == golden
    assert b"".join(export(store, done.job_id)) == path.read_bytes()


def test_every_released_version_has_its_logs() -> None:
    assert {path.stem.partition("-")[0] for path in LOGS} == {"0.1"}
    assert len(LOGS) == 3


# --- upcasting -------------------------------------------------------------------------------------------------------


def stored(*data: dict[str, Any]) -> list[Row]:
    """Rows of a job whose later events say that."""
    clock = VirtualClock()
    created = JobCreated(workflow="w", workflow_version="1", plan={"phases": []})
    sealed = seal("job", Position(), [created, *[ContextChanged(**each) for each in data]], clock.now(), clock)
    return [
        Row(one.version, one.event_id, one.type, one.schema_version, one.recorded_at, one.payload, one.hash)
        for one in sealed
    ]


def test_events_of_earlier_schema_versions_are_brought_up_to_date_one_version_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = stored({"set": {"value": 1}}, {"set": {"value": 2}})
    monkeypatch.setattr(ContextChanged, "schema_version", 3)
    monkeypatch.setattr(rows, "_SIGNATURES", set())
    steps = {
        ("ContextChanged", 1): lambda data: {**data, "set": {**data["set"], "second": True}},
        ("ContextChanged", 2): lambda data: {**data, "set": {**data["set"], "third": True}},
    }
    monkeypatch.setattr(upcasters, "UPCASTERS", steps)
    for _ in range(2):  # the second time what has passed is known
        events = list(read_rows("job", old, Position()))
        assert [event.data["set"] for event in events[1:]] == [
            {"value": value, "second": True, "third": True} for value in (1, 2)
        ]
        assert [event.schema_version for event in events] == [1, 1, 1]


def test_newer_event_is_refused_by_job_and_version_and_those_before_it_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(ContextChanged, "schema_version", 2)
        log = stored({"set": {"value": 1}})
    read = read_rows("job", log, Position())
    assert next(read).version == 1
    with pytest.raises(UnknownEvent, match=r"job job, version 2: ContextChanged has schema version 2 \(known: 1\)"):
        next(read)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b'{"unheard_of":1}', "the unknown field 'unheard_of'"),
        (b'{"set":1}', "a int in 'set'"),
        (b"[]", "is no object"),
    ],
)
def test_data_of_another_shape_are_refused_whatever_their_hash_and_their_neighbours(payload: bytes, why: str) -> None:
    log = stored({"set": {"value": 1}}, {"set": {"value": 2}})
    assert len(list(read_rows("job", log, Position()))) == 3
    last = log[2]
    envelope = (last.version, last.event_id, last.type, last.schema_version, last.recorded_at)
    forged = last._replace(payload=payload, hash=link(log[1].hash, "job", *envelope, payload))
    read = read_rows("job", [*log[:2], forged], Position())
    assert [next(read).version for _ in range(2)] == [1, 2]
    with pytest.raises(DamagedLog, match=f"version 3: ContextChanged .*{why}"):
        next(read)
