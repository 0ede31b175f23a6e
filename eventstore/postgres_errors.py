"""What PostgreSQL and psycopg raise, turned into the log's own errors in one place, by SQLSTATE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import psycopg

from steplog.eventstore.errors import (
    OutcomeUnknown,
    StoreDamaged,
    StoreError,
    StoreNotMigrated,
    StoreUnavailable,
)


class Kind(StrEnum):
    """What an error says about the statement it ended."""

    AGAIN = "again"
    """Nothing was stored, and the same may succeed now."""
    ELSEWHERE = "elsewhere"
    """Nothing was stored here, for this server only reads; the one that writes may be another by now."""
    UNKNOWN = "unknown"
    """The connection or the server went away: a write may be stored."""
    UNAVAILABLE = "unavailable"
    """Nothing was stored; the server cannot do it at present."""
    DAMAGED = "damaged"
    NOT_MIGRATED = "not migrated"
    REFUSED = "refused"
    """Nothing was stored, and it never will be."""


_CLASSES = {
    "08": Kind.UNKNOWN,  # connection exception
    "25": Kind.UNAVAILABLE,  # invalid transaction state: a transaction that stood idle too long
    "28": Kind.UNAVAILABLE,  # invalid authorization
    "3D": Kind.UNAVAILABLE,  # no such database
    "40": Kind.AGAIN,  # transaction rollback: deadlock, serialization
    "53": Kind.UNAVAILABLE,  # insufficient resources: disk full, out of memory, too many connections
    "55": Kind.UNAVAILABLE,  # object not in prerequisite state
    "57": Kind.UNKNOWN,  # operator intervention: shutdown, cancelled, terminated
    "58": Kind.UNKNOWN,  # system error: I/O
}
_STATES = {
    "25006": Kind.ELSEWHERE,  # read-only transaction: a standby
    "25P04": Kind.UNKNOWN,  # transaction timeout, which ends the connection
    "3F000": Kind.NOT_MIGRATED,  # no such schema
    "40003": Kind.UNKNOWN,  # statement completion unknown
    "42883": Kind.NOT_MIGRATED,  # no such function
    "42P01": Kind.NOT_MIGRATED,  # no such table
    "42703": Kind.NOT_MIGRATED,  # no such column
    "55P03": Kind.AGAIN,  # lock not available
    "XX001": Kind.DAMAGED,  # data corrupted
    "XX002": Kind.DAMAGED,  # index corrupted
}


def kind_of(error: psycopg.Error) -> Kind:
    """What the error says about the statement it ended."""
    state = error.sqlstate
    if state is not None:
        return _STATES.get(state) or _CLASSES.get(state[:2], Kind.REFUSED)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Kind.UNKNOWN
    return Kind.REFUSED


def translate(error: psycopg.Error, *, writing: bool = False) -> StoreError:
    """The log's error for one of psycopg's; `writing` says whether the statement may have committed something."""
    kind = kind_of(error)
    said = (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0]
    state = f" ({error.sqlstate})" if error.sqlstate else ""
    if kind is Kind.UNKNOWN and writing:
        return OutcomeUnknown(f"whether the last write is stored is not known: {said}{state}")
    if kind is Kind.NOT_MIGRATED:
        return StoreNotMigrated(f"the schema is missing or older than this steplog: {said}{state}")
    if kind is Kind.DAMAGED:
        return StoreDamaged(f"the database is damaged: {said}{state}")
    if kind is Kind.REFUSED:
        return StoreError(f"the database refused a statement: {said}{state}")
    if kind is Kind.ELSEWHERE:
        return StoreUnavailable(f"the database cannot be written here: {said}{state}")
    if kind is Kind.AGAIN:
        return StoreUnavailable(f"the database was locked for too long: {said}{state}")
    return StoreUnavailable(f"the database cannot be used: {said}{state}")


@contextmanager
def translated(*, writing: bool = False) -> Iterator[None]:
    """Raises the log's errors where the body raises psycopg's."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, writing=writing) from error
    except UnicodeEncodeError as error:
        raise StoreError(f"text that cannot be sent: a lone surrogate at character {error.start}") from None
