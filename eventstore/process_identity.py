"""Whether the very process behind a worker still lives, as far as this machine can tell for certain.

Everything comes from /proc. Where a part of it is missing, hidden or not about the same machine and pid namespace,
nothing is certain, and the worker's lease decides.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple

from steplog.eventstore.store import WorkerIdentity

_PROC = Path("/proc")
_GONE_STATES = frozenset("ZXx")
_STATE_FIELD = 0
_START_FIELD = 19
"""Counted behind the command's closing bracket: fields 3 and 22 of proc(5)."""


class _Place(NamedTuple):
    """Where process ids mean the same."""

    host: str
    boot_id: str | None
    pid_namespace: str | None


def own_identity(worker_id: str) -> WorkerIdentity:
    """The identity of a worker that runs in this process."""
    place = _own_place()
    stat = _stat(os.getpid())
    started = stat[_START_FIELD] if stat else None
    return WorkerIdentity(worker_id, place.host, os.getpid(), place.boot_id, place.pid_namespace, started)


def certainly_dead(identity: WorkerIdentity) -> bool:
    """Whether that process is gone beyond doubt; False also where it cannot be told."""
    theirs = _Place(identity.host, identity.boot_id, identity.pid_namespace)
    if None in theirs or identity.process_started is None or theirs != _own_place():
        return False
    try:
        stat = _stat(identity.pid)
    except PermissionError:
        return False
    if stat is None:
        return _no_such_process(identity.pid)
    return stat[_STATE_FIELD] in _GONE_STATES or stat[_START_FIELD] != identity.process_started


def own_boot_id() -> str | None:
    """This machine's present boot, where it can be told."""
    return _own_place().boot_id


def _own_place() -> _Place:
    try:
        boot_id = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(_PROC / "self/ns/pid") if _shows_own_namespace() else None
    except OSError:
        return _Place(socket.gethostname(), None, None)
    return _Place(socket.gethostname(), boot_id or None, namespace)


def _shows_own_namespace() -> bool:
    """Whether /proc lists this process's own pid namespace: one mounted outside of it names other processes."""
    for line in (_PROC / "self/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[1:] == [str(os.getpid())]
    return False


def _stat(pid: int) -> list[str] | None:
    """The fields of a process behind its command's name, or None where /proc does not show it."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _no_such_process(pid: int) -> bool:
    """The kernel's word: /proc may be mounted so that it hides the processes of others."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
