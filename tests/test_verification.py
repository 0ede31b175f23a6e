"""`examine` catches every change of a single field of what is stored of a job, and no more than that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from verified_logs import EVENTS, Stored, mutants, stored

from steplog.eventstore.errors import DamagedLog
from steplog.projections.state import REDUCER_VERSION
from steplog.projections.verification import Finding, examine

WHOLE = stored()
SAMPLED_EVERY = 47
MUTANTS_MIN = 9_000


def findings(of: Stored) -> list[Finding]:
    return list(examine(of.head, of.rows, of.states))


def test_whole_job_has_no_findings() -> None:
    assert len(WHOLE.rows) == EVENTS
    assert findings(WHOLE) == []


def test_sampled_changes_of_a_single_field_are_found() -> None:
    assert_caught(SAMPLED_EVERY)


@pytest.mark.heavy
def test_every_change_of_a_single_field_is_found() -> None:
    assert assert_caught(1) > MUTANTS_MIN


def assert_caught(every: int) -> int:
    """How many mutants there are; each one that was looked at has a finding that names the job."""
    count, missed, where = 0, list[str](), Counter[str]()
    for name, mutant in mutants(WHOLE):
        count += 1
        where[name.split()[0]] += 1
        if count % every == 0 and not any(found.job_id == WHOLE.head.job_id for found in findings(mutant)):
            missed.append(name)
    assert missed == []
    assert set(where) == {"row", "head:", "state"}
    return count


def test_damage_in_the_log_is_named_by_its_version() -> None:
    rows = [*WHOLE.rows[:99], WHOLE.rows[99]._replace(payload=b"{}"), *WHOLE.rows[100:]]
    assert [(found.version, found.repairable) for found in findings(WHOLE._replace(rows=rows))] == [(100, False)]


def test_only_columns_of_the_head_can_be_repaired() -> None:
    columns = WHOLE.head.columns._replace(status="failed", done=3)
    found = findings(WHOLE._replace(head=replace(WHOLE.head, columns=columns)))
    assert [(each.version, each.repairable) for each in found] == [(EVENTS, True), (EVENTS, True)]
    (found_hash,) = findings(WHOLE._replace(head=replace(WHOLE.head, hash="0" * 64)))
    assert not found_hash.repairable


def test_event_behind_the_head_is_found() -> None:
    head, rows = WHOLE.head, WHOLE.rows
    earlier = replace(head, version=EVENTS - 1, hash=rows[-2].hash, recorded_at=rows[-2].recorded_at)
    assert [found.version for found in findings(WHOLE._replace(head=earlier))][-1:] == [EVENTS]


def test_number_equal_in_python_but_of_another_kind_is_found() -> None:
    state = {**WHOLE.states[0].state, "epoch": True}
    assert len(findings(WHOLE._replace(states=[replace(WHOLE.states[0], state=state)]))) == 1


def test_state_of_another_reducer_must_stand_in_this_log_only() -> None:
    other = replace(WHOLE.states[0], reducer_version=REDUCER_VERSION - 1, state={"of": "old"})
    assert findings(WHOLE._replace(states=[other])) == []
    moved = replace(other, position=other.position._replace(hash="0" * 64))
    assert len(findings(WHOLE._replace(states=[moved]))) == 1


def test_state_that_cannot_be_read_is_found() -> None:
    def states() -> object:
        yield WHOLE.states[0]
        raise DamagedLog(WHOLE.head.job_id, 150, "no JSON")

    (found,) = examine(WHOLE.head, WHOLE.rows, states())  # type: ignore[arg-type]
    assert (found.version, found.why) == (150, "no JSON")


def test_rows_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of any length is read in bounded memory: no row is taken before those some way ahead of it were folded."""
    monkeypatch.setattr("steplog.eventstore.rows.CHUNK_ROWS", 20)
    taken = 0

    def rows() -> object:
        nonlocal taken
        for taken, row in enumerate(WHOLE.rows, 1):
            yield row._replace(hash="") if taken == 50 else row

    assert len(list(examine(WHOLE.head, rows(), []))) == 1  # type: ignore[arg-type]
    assert taken == 60
