"""A copy of a SQLite database by its backup API, while others read and write."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from steplog.eventstore.disk import flush
from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.sqlite_errors import translated


def back_up(source: sqlite3.Connection, path: Path) -> None:
    """Copy the database as it is now into a new file, which is there once it is whole and on the disk.

    Raises StoreUnavailable where the file is there already or cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with translated(), closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
            # One file, nothing beside it; whoever opens it switches it to WAL again.
            copy.execute("PRAGMA journal_mode = DELETE")
        flush(part)
        os.link(part, path)
        flush(path.absolute().parent)
    except OSError as error:
        raise StoreUnavailable(f"the backup cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
