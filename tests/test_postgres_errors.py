"""Each SQLSTATE becomes one of the log's errors; what it becomes depends on whether something may be stored."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from steplog.eventstore.errors import (
    OutcomeUnknown,
    StoreDamaged,
    StoreError,
    StoreNotMigrated,
    StoreUnavailable,
)
from steplog.eventstore.postgres_errors import Kind, kind_of, translate

ROWS = [
    ("08006", Kind.UNKNOWN, OutcomeUnknown, StoreUnavailable),
    ("08P01", Kind.UNKNOWN, OutcomeUnknown, StoreUnavailable),
    ("22003", Kind.REFUSED, StoreError, StoreError),
    ("22P02", Kind.REFUSED, StoreError, StoreError),
    ("23505", Kind.REFUSED, StoreError, StoreError),
    ("25006", Kind.ELSEWHERE, StoreUnavailable, StoreUnavailable),
    ("25P03", Kind.UNAVAILABLE, StoreUnavailable, StoreUnavailable),
    ("28P01", Kind.UNAVAILABLE, StoreUnavailable, StoreUnavailable),
    ("3D000", Kind.UNAVAILABLE, StoreUnavailable, StoreUnavailable),
    ("3F000", Kind.NOT_MIGRATED, StoreNotMigrated, StoreNotMigrated),
    ("40001", Kind.AGAIN, StoreUnavailable, StoreUnavailable),
    ("40003", Kind.UNKNOWN, OutcomeUnknown, StoreUnavailable),
    ("40P01", Kind.AGAIN, StoreUnavailable, StoreUnavailable),
    ("42501", Kind.REFUSED, StoreError, StoreError),
    ("42883", Kind.NOT_MIGRATED, StoreNotMigrated, StoreNotMigrated),
    ("42P01", Kind.NOT_MIGRATED, StoreNotMigrated, StoreNotMigrated),
    ("53100", Kind.UNAVAILABLE, StoreUnavailable, StoreUnavailable),
    ("53300", Kind.UNAVAILABLE, StoreUnavailable, StoreUnavailable),
    ("54000", Kind.REFUSED, StoreError, StoreError),
    ("55P03", Kind.AGAIN, StoreUnavailable, StoreUnavailable),
    ("57014", Kind.UNKNOWN, OutcomeUnknown, StoreUnavailable),
    ("57P01", Kind.UNKNOWN, OutcomeUnknown, StoreUnavailable),
    ("57P03", Kind.UNKNOWN, OutcomeUnknown, StoreUnavailable),
    ("58030", Kind.UNKNOWN, OutcomeUnknown, StoreUnavailable),
    ("XX001", Kind.DAMAGED, StoreDamaged, StoreDamaged),
]


@pytest.mark.parametrize(("state", "kind", "writing", "reading"), ROWS, ids=[row[0] for row in ROWS])
def test_each_state_has_its_error(state: str, kind: Kind, writing: type[StoreError], reading: type[StoreError]) -> None:
    error = errors.lookup(state)()

    assert kind_of(error) is kind
    assert type(translate(error, writing=True)) is writing
    assert type(translate(error)) is reading


def test_a_connection_lost_without_a_word_leaves_the_outcome_unknown() -> None:
    lost = psycopg.OperationalError("server closed the connection unexpectedly\n\tThis probably means …")

    assert type(translate(lost, writing=True)) is OutcomeUnknown
    assert type(translate(lost)) is StoreUnavailable


def test_an_error_is_one_line() -> None:
    assert "\n" not in str(translate(psycopg.OperationalError("first\nsecond")))


def test_a_value_the_driver_refuses_was_not_stored() -> None:
    assert type(translate(psycopg.DataError("NUL in a string"), writing=True)) is StoreError
