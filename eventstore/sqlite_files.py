"""Which SQLite files this process has open, and which its parent had open when it was forked.

SQLite cannot be carried across a fork: a child that opens a file which its parent had open shares the parent's idea of
the file's locks without having them, and acknowledged commits are lost. Such a child is refused.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

from steplog.eventstore.errors import StoreUnavailable

FileKey = tuple[int, int]
"""Device and inode."""

_open: Counter[FileKey] = Counter()
_inherited: set[FileKey] = set()
_lock = threading.Lock()


def remember(path: Path) -> FileKey:
    """Note that a store of this process has the file open."""
    key = _key(path)
    with _lock:
        _open[key] += 1
    return key


def forget(key: FileKey) -> None:
    """Note that the store has closed it."""
    with _lock:
        _open[key] -= 1


def refuse_inherited(path: Path) -> None:
    """Raises StoreUnavailable if the file was open in the parent when this process was forked."""
    if _inherited and path.exists() and _key(path) in _inherited:
        raise StoreUnavailable(
            f"{path} was open in the parent when this process was forked, and SQLite files cannot be carried across:"
            " close the store before forking, or start the process with spawn"
        )


def _key(path: Path) -> FileKey:
    status = path.stat()
    return status.st_dev, status.st_ino


def _inherit() -> None:
    global _lock
    _lock = threading.Lock()
    _inherited.update(+_open)
    _open.clear()


os.register_at_fork(after_in_child=_inherit)
