"""Who lives, told by the kernel: one byte per worker of a file beside the database, locked by the worker's process.

A POSIX record lock belongs to the process: its children do not inherit it, and the kernel frees it the moment the
process dies, however it dies. Closing any descriptor of the file drops all of the process's locks on it, so a process
opens the file once, for everybody in it, and the locks of this very process are looked up and never probed.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path


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
            return  # a forked child's copy: closing it would drop the locks that the child took through its own
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
        """Lock a byte again that this process has, in case foreign code opened and closed the file meanwhile."""
        with self._lock:
            if byte in self._held:
                self._try(byte)

    def free(self, byte: int) -> None:
        """Unlock a byte of this process."""
        with self._lock:
            if byte in self._held:
                self._held.remove(byte)
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)

    def is_locked(self, byte: int) -> bool:
        """Whether any living process has the byte.

        The probe takes a free byte for an instant: probes of one byte must not run at the same time.
        """
        with self._lock:
            if byte in self._held:
                return True
            if not self._try(byte):
                return True
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)
            return False

    def _try(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True


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
    """A forked child has none of its parent's locks; it leaves the parent's descriptors open and opens its own."""
    global _registry_lock
    _registry.clear()
    _registry_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent)
