"""What sqlite3 raises, turned into the log's own errors in one place."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from steplog.eventstore.errors import StoreDamaged, StoreError, StoreUnavailable

_KINDS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, "another process keeps the database locked"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "another connection keeps the database locked"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "the database cannot be opened"),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "the disk is full"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailable, "the statement was interrupted"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "the database file cannot be read or written"),
    sqlite3.SQLITE_NOLFS: (StoreUnavailable, "the file system cannot hold the database"),
    sqlite3.SQLITE_NOMEM: (StoreUnavailable, "out of memory"),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "access to the database is denied"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailable, "the database's locks cannot be had"),
    sqlite3.SQLITE_READONLY: (StoreUnavailable, "the database is read-only"),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "the database file is damaged"),
    sqlite3.SQLITE_NOTADB: (StoreDamaged, "the file is no SQLite database"),
    sqlite3.SQLITE_FORMAT: (StoreDamaged, "the file is no SQLite database"),
}


DRIVER_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises; the second where damage got into the text of an error."""


def translate(error: sqlite3.Error | UnicodeDecodeError) -> StoreError:
    """The log's error for one of sqlite3's."""
    if isinstance(error, UnicodeDecodeError):
        return StoreDamaged("the database holds text that is not UTF-8")
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        kind, what = _KINDS.get(code & 0xFF, (StoreError, "the database refused a statement"))
        return kind(f"{what} ({error})")
    if str(error).startswith("Could not decode"):
        return StoreDamaged("the database holds text that is not UTF-8")
    return StoreUnavailable(f"the database cannot be used ({error})")


@contextmanager
def translated() -> Iterator[None]:
    """Raises the log's errors where the body raises sqlite3's."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error
