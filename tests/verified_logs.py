"""A log of 200 events as a store holds it, and every way to change one field of what is stored of the job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import orjson
from operated_jobs import ERROR, plan
from shown_jobs import JOB_ID, step_plan

from steplog.eventstore import events as ev
from steplog.eventstore.chain import Position, end_of, seal
from steplog.eventstore.events import Event, EventData
from steplog.eventstore.inspection import StoredState
from steplog.eventstore.rows import Row, read_rows
from steplog.eventstore.store import Head, HeadColumns
from steplog.projections.evolve import fold
from steplog.projections.head import head_of
from steplog.projections.state import REDUCER_VERSION
from steplog.testing.clock import VirtualClock

EVENTS = 200
STORED_AT = (60, 150)


class Stored(NamedTuple):
    """All that a store has of one job."""

    head: Head
    rows: list[Row]
    states: list[StoredState]


def facts() -> Iterator[EventData]:
    """A job that tries its sub-steps again and again, changes its context, and goes on for ever."""
    names = [f"step{number:02}" for number in range(60)]
    of = plan(main=[step_plan(name) for name in names])
    yield ev.JobCreated(workflow="w", workflow_version="1", plan=of, input={"dishes": [1, 2.5, None]}, key="k")
    yield ev.JobClaimed(worker_id="worker", epoch=1, claim_id="claim", reason="first")
    yield ev.PhaseStarted(phase="main")
    for name in names:
        which: dict[str, Any] = {"phase": "main", "sub_step": name}
        yield ev.SubStepStarted(**which, attempt=1, idempotency_key=f"key-{name}")
        yield ev.SubStepFailed(**which, attempt=1, seconds=0.5, error=ERROR)
        yield ev.SubStepRetryScheduled(**which, attempt=2, retry_at="2026-11-23T13:00:00.000000Z")
        yield ev.SubStepStarted(**which, attempt=2, idempotency_key=f"key-{name}")
        yield ev.ContextChanged(set={name: [name, 7, True]}, **which)
        yield ev.SubStepCompleted(**which, attempt=2, seconds=1.5, result={"made": name})


def stored() -> Stored:
    clock = VirtualClock()
    new = seal(JOB_ID, Position(), islice(facts(), EVENTS), clock.now(), clock)
    rows = [
        Row(one.version, one.event_id, one.type, one.schema_version, one.recorded_at, one.payload, one.hash)
        for one in new
    ]
    events = list(read_rows(JOB_ID, rows, Position()))
    end = end_of(new, Position())
    head = Head(JOB_ID, end.version, end.hash, end.recorded_at, head_of(fold(events)))
    return Stored(head, rows, [state_at(events[:version]) for version in STORED_AT])


def state_at(events: list[Event]) -> StoredState:
    last = events[-1]
    at = Position(last.version, last.hash, last.recorded_at)
    return StoredState(JOB_ID, at, REDUCER_VERSION, orjson.loads(orjson.dumps(fold(events))))


def mutants(of: Stored) -> Iterator[tuple[str, Stored]]:
    """Each with one field changed, named by where; or a row removed, said twice, or swapped with the next."""
    for at, row in enumerate(of.rows):
        for name, changed in row_mutants(row):
            yield f"row {row.version}: {name}", of._replace(rows=[*of.rows[:at], changed, *of.rows[at + 1 :]])
        yield f"row {row.version} removed", of._replace(rows=of.rows[:at] + of.rows[at + 1 :])
        yield f"row {row.version} twice", of._replace(rows=[*of.rows[: at + 1], *of.rows[at:]])
        if at + 1 < len(of.rows):
            swapped = [of.rows[at + 1]._replace(version=row.version), row._replace(version=row.version + 1)]
            yield f"row {row.version} swapped", of._replace(rows=[*of.rows[:at], *swapped, *of.rows[at + 2 :]])
    for name, head in head_mutants(of.head):
        yield f"head: {name}", of._replace(head=head)
    for at, state in enumerate(of.states):
        for name, changed_state in state_mutants(state):
            states = [*of.states[:at], changed_state, *of.states[at + 1 :]]
            yield f"state at {state.position.version}: {name}", of._replace(states=states)


def row_mutants(row: Row) -> Iterator[tuple[str, Row]]:
    for name, change in other_fields(row, "event_id", "type", "recorded_at", "hash"):
        yield name, row._replace(**change)
    yield "type of another event", row._replace(type="JobPaused" if row.type != "JobPaused" else "JobResumed")
    for number in (row.version - 1, row.version + 1, -row.version, row.version + 1000):
        yield "version", row._replace(version=number)
    for number in (0, row.schema_version + 1, -1):
        yield "schema_version", row._replace(schema_version=number)
    for path, changed in other_values(orjson.loads(row.payload)):
        yield f"data{path}", row._replace(payload=orjson.dumps(changed, option=orjson.OPT_SORT_KEYS))
    assert isinstance(row.payload, bytes)
    for payload in (b"", row.payload[:-1], row.payload + b" ", b" " + row.payload, b"null", b"{}"):
        if payload != row.payload:
            yield "data's bytes", row._replace(payload=payload)


def head_mutants(head: Head) -> Iterator[tuple[str, Head]]:
    yield "version", replace(head, version=head.version - 1)
    yield "version", replace(head, version=head.version + 1)
    for name, change in other_fields(head, "hash", "recorded_at"):
        yield name, replace(head, **change)
    for path, columns in other_values(head.columns._asdict()):
        if len(columns) == len(head.columns._asdict()):
            yield f"columns{path}", replace(head, columns=HeadColumns(**columns))


def state_mutants(state: StoredState) -> Iterator[tuple[str, StoredState]]:
    for name, change in other_fields(state.position, "hash", "recorded_at"):
        yield name, replace(state, position=state.position._replace(**change))
    for version in (state.position.version - 1, state.position.version + 1, EVENTS + 1):
        yield "version", replace(state, position=state.position._replace(version=version))
    for path, changed_state in other_values(state.state):
        yield f"state{path}", replace(state, state=changed_state)


def other_fields(of: object, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        for changed in other_texts(getattr(of, name)):
            yield name, {name: changed}


def other_texts(text: str) -> list[str]:
    middle = len(text) // 2
    other = "1" if text[middle] == "0" else "0"
    return ["", text[:-1], f"{text} ", f"{text[:middle]}{other}{text[middle + 1 :]}"]


def other_values(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The value with one leaf of it changed, removed or of another kind, or with one too many."""
    match value:
        case dict():
            yield f"{path}.extra", {**value, "extra": 1}
            for name in value:
                yield f"{path}.{name} removed", {key: inner for key, inner in value.items() if key != name}
                for inner_path, inner in other_values(value[name], f"{path}.{name}"):
                    yield inner_path, {**value, name: inner}
        case list():
            yield f"{path}[]", [*value, 1]
            for at, element in enumerate(value):
                yield f"{path}[{at}] removed", value[:at] + value[at + 1 :]
                for inner_path, inner in other_values(element, f"{path}[{at}]"):
                    yield inner_path, [*value[:at], inner, *value[at + 1 :]]
        case bool():
            yield path, not value
        case int() | float():
            yield path, value + 1
            yield path, str(value)
        case str():
            yield path, f"{value}x"
            yield path, None
        case _:
            yield path, 0
