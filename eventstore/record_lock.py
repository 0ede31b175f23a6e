"""Who lives, told by the kernel: one byte per worker of a file beside the database, locked by the worker's process.

The lock belongs to the file as this process has opened it, so it does not matter who else in it opens and closes the
file, as a copy of its folder does. The kernel frees it the moment the last process dies that has that opening, however
it dies; a forked child closes its own. Where there are only POSIX record locks, which belong to the process and which
closing any descriptor of the file drops, they are taken again with each heartbeat. Either way a process opens the file
once, for everybody in it, and what this very process holds is looked up and never probed.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
from pathlib import Path

_OF_OPENING: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.maxsize > 1 << 32 else None
"""The command for locks that belong to an opening of the file, where there are any."""


class LockFile:
    """This process's locks on one file. Get it with `shared`, give it back with `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held: set[int] = set()
        self._users = 0
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def shared(cls, path: Path) -> LockFile:
        """The one lock file that this process has at `path`, opened (and created) if it has none yet."""
        with _registry_lock:
            file = _registered(path)
            if file is None:
                file = cls(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
                _registry[_key(os.fstat(file._descriptor))] = file
            file._users += 1
            return file

    def release(self) -> None:
        """The caller needs the file no more and has freed its bytes; it is closed once nobody needs it."""
        if self._pid != os.getpid():
            return  # a forked child's copy, which it has left to its parent
        with _registry_lock:
            self._users -= 1
            if self._users == 0:
                _registry.pop(_key(os.fstat(self._descriptor)), None)
                os.close(self._descriptor)

    def take(self, byte: int) -> bool:
        """Lock a byte for this process; whether this process has it now."""
        with self._lock:
            if byte in self._held:
                return True
            if not self._try(byte):
                return False
            self._held.add(byte)
            return True

    def renew(self, byte: int) -> None:
        """Lock a byte again that this process has, in case it was lost as only POSIX record locks are."""
        with self._lock:
            if byte in self._held:
                self._try(byte)

    def free(self, byte: int) -> None:
        """Unlock a byte of this process."""
        with self._lock:
            if byte in self._held:
                self._held.remove(byte)
                self._unlock(byte)

    def is_locked(self, byte: int) -> bool:
        """Whether any living process has the byte.

        The probe takes a free byte for an instant: probes of one byte must not run at the same time.
        """
        with self._lock:
            if byte in self._held:
                return True
            if not self._try(byte):
                return True
            self._unlock(byte)
            return False

    def leave_to_parent(self) -> None:
        """In a forked child: have nothing of the file any more."""
        self._held.clear()
        if _OF_OPENING is not None:  # else closing it would drop the locks that the child takes through its own
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self, byte: int) -> bool:
        try:
            self._set(fcntl.F_WRLCK, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, byte: int) -> None:
        self._set(fcntl.F_UNLCK, byte)

    def _set(self, kind: int, byte: int) -> None:
        if _OF_OPENING is not None:
            fcntl.fcntl(self._descriptor, _OF_OPENING, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))
        elif kind == fcntl.F_UNLCK:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)
        else:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)


_registry: dict[tuple[int, int, int], LockFile] = {}
"""By process id, device and inode."""

_registry_lock = threading.Lock()


def _key(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino


def _registered(path: Path) -> LockFile | None:
    """Found without opening the file: closing a second descriptor would drop the locks."""
    try:
        return _registry.get(_key(os.stat(path)))
    except FileNotFoundError:
        return None


def _forget_parent() -> None:
    """A forked child has none of its parent's locks, and opens the file anew."""
    global _registry_lock
    for file in _registry.values():
        file.leave_to_parent()
    _registry.clear()
    _registry_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent)
