"""A process that holds record locks: `lock_program.py FILE`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from process_program import serve

from steplog.eventstore.record_lock import LockFile


def fork_and_close(path: Path, inherited: LockFile, byte: int) -> dict[str, bool]:
    """What a forked child finds about a byte of its parent, and whether its own lock outlives the inherited object."""
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    if os.fork() == 0:
        own = LockFile.shared(path)
        found = [own is not inherited, own.is_locked(byte), own.take(byte + 1)]
        inherited.release()
        os.write(to_parent, bytes(found))
        os.read(from_parent, 1)
        os._exit(0)
    is_another, sees_parents, took_own = os.read(from_child, 3)
    keeps_own = inherited.is_locked(byte + 1)
    os.write(to_child, b".")
    os.wait()
    return {
        "is another": bool(is_another),
        "sees parent's": bool(sees_parents),
        "took its own": bool(took_own),
        "keeps its own": keeps_own,
    }


def fork_and_stay() -> int:
    """The process id of a child that does nothing."""
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(to_parent, b".")
    while child == 0:
        signal.pause()
    os.read(from_child, 1)
    return child


if __name__ == "__main__":
    path = Path(sys.argv[1])
    file = LockFile.shared(path)
    serve(
        {
            "take": file.take,
            "is_locked": file.is_locked,
            "fork_and_stay": fork_and_stay,
            "fork_and_close": lambda byte: fork_and_close(path, file, byte),
        }
    )
