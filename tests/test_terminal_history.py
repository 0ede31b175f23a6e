"""Events as lines: columns, times, and a summary for every type of the catalogue."""

from __future__ import annotations

from typing import Any

import click
import pytest
from shown_jobs import HALF_WAY, JOB_ID, events_of

from steplog.eventstore.events import CATALOGUE, Event
from steplog.projections.documents import event_document
from steplog.terminal.history import HistoryLines, known_types, summary
from steplog.terminal.look import Look

SUMMARIES: list[tuple[str, dict[str, Any], str]] = [
    ("JobClaimed", {"worker_id": "0123456789ab", "epoch": 2, "claim_id": "c", "reason": "takeover"},
     "takeover, worker 456789ab, epoch 2"),
    ("JobReleased", {"reason": "handed back"}, "handed back"),
    ("SubStepProgressed", {"done": 60, "total": 100, "note": "rows"}, "60/100 rows"),
    ("SubStepLogged", {"lines": ["one", "two"]}, "one (and 1 more)"),
    ("SubStepCheckpointed", {"cursor": 60, "draft": {"set": {"a": 1}}}, "cursor 60, draft a"),
    ("SubStepCompleted", {"seconds": 0.8, "result": ["a"]}, '0.8s → ["a"]'),
    ("SubStepCompleted", {"seconds": 0.8, "context_refused": {"x": 1}}, "0.8s, context refused: x"),
    ("SubStepFailed", {"seconds": 2, "attempt": 1, "error": {"type": "E", "message": "m", "retryable": False}},
     "2.0s, attempt 1, not to be retried: E: m"),
    ("SubStepSkipped", {"cause": "condition", "reason": "no files"}, "condition: no files"),
    ("SubStepInterrupted", {"attempt": 1, "cause": "owner died"}, "attempt 1: owner died"),
    ("LateOutcome", {"attempt": 1, "outcome": "completed", "result": 5}, "attempt 1 completed: 5"),
    ("ContextChanged", {"set": {"a": 1, "b": "x"}, "unset": ["c"]}, 'a = 1, b = "x", unset c'),
    ("JobParked", {"reason": "crash loop", "detail": "3 times"}, "crash loop: 3 times"),
    ("JobCompleted", {"warnings": ["one", "two"]}, "one; two"),
    ("SignalReceived", {"name": "approved", "payload": {"by": 1}, "signal_id": "s"},
     'name = "approved", payload = {"by": 1}, signal_id = "s"'),
]  # fmt: skip


def event(type: str, data: dict[str, Any]) -> Event:
    return Event(JOB_ID, 7, "id", type, 1, "2026-11-23T12:00:01.500000Z", data, "hash")


@pytest.mark.parametrize(("type", "data", "expected"), SUMMARIES)
def test_a_summary_says_what_the_event_adds(type: str, data: dict[str, Any], expected: str) -> None:
    assert summary(event(type, data)) == expected


def test_a_summary_is_one_printable_line() -> None:
    error = {"type": "E", "message": "a\n\x1b[2J\u202e" * 500, "traceback": "t\n"}
    said = summary(event("SubStepFailed", {"seconds": 1, "attempt": 1, "error": error}))
    assert said.isprintable()
    assert len(said) <= 120


def test_every_event_of_a_job_stands_in_its_columns() -> None:
    events = events_of(HALF_WAY)
    lines = HistoryLines(events[0], len(events), Look())
    assert lines.line(events[0]) == (
        "  1    +0.000s  JobCreated                                       registration v1: 8 sub-steps"
    )
    assert lines.line(events[16]) == (
        " 17   +48.000s  SubStepRetryScheduled    phase2/menu_import      attempt 2 in 5.0s"
    )


def test_utc_shows_instants_whole() -> None:
    events = events_of(HALF_WAY)
    assert "2026-11-23T12:00:48.000000Z" in HistoryLines(events[0], 17, Look(utc=True)).line(events[16])


def test_json_has_the_whole_event() -> None:
    first = events_of(HALF_WAY)[0]
    assert event_document(first) == {name: getattr(first, name) for name in Event._fields}


def test_types_are_named_in_any_case() -> None:
    assert known_types(["substepfailed", "JobCreated"]) == {"SubStepFailed", "JobCreated"}


def test_an_unknown_type_is_refused_with_the_ones_like_it() -> None:
    with pytest.raises(click.BadParameter, match="SubStepFailed"):
        known_types(["SubStepFail"])


@pytest.mark.parametrize("type", sorted(CATALOGUE))
def test_every_type_of_the_catalogue_fits_its_column(type: str) -> None:
    first = events_of(HALF_WAY)[0]
    line = HistoryLines(first, 17, Look()).line(event(type, _minimal(type)))
    assert type in line


def _minimal(type: str) -> dict[str, Any]:
    """Data of the type with a plausible value in every field that it must have."""
    fields = CATALOGUE[type].model_fields
    values: dict[Any, Any] = {
        "plan": {"phases": []}, "lines": ["x"], "failed": ["x"], "seconds": 1.0, "attempt": 1, "epoch": 1, "done": 1.0,
        "error": {"type": "E", "message": "m"}, "items": [{"key": "x"}], "retry_at": "2026-11-23T12:00:02.000000Z",
    }  # fmt: skip
    return {name: values.get(name, "x") for name, field in fields.items() if field.is_required()}
