"""The process that handlers' processes are forked from: it has imported the code, has one thread, and runs nothing.

It is told to fork with three files: the new process's way to the worker, its leash, and where it leaves its last words
should it crash. Down the leash goes the status with which the process ended; where the worker closes its side, or is
gone, the process is killed with all that it has left in its group.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from steplog.engine.isolation.child import work
from steplog.engine.isolation.code import import_alone
from steplog.engine.isolation.frames import STATUS_BYTES

FORKED_WITH = 3

_PARENT_DEATH_SIGNAL = 1
_KILLED_FIRST = "500"
"""Where memory runs out, the kernel takes a handler's process, not its worker."""


def main(control_fd: int, modules: list[str]) -> NoReturn:
    """Import them, then fork whenever it is asked for, until the worker is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_it_to_the_worker)
    for module in modules:
        with contextlib.suppress(BaseException):  # whoever is forked imports it again, and says so
            import_alone(module)
    if modules and _threads() > 1:  # what a thread holds at the moment of a fork, nobody lets go of
        os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], sys.argv[1], sys.argv[2], "[]"])
    os.set_inheritable(control_fd, False)
    gc.freeze()
    _Template(socket.socket(fileno=control_fd)).serve()


def begin() -> NoReturn:
    """`main`, with what the command line says: the control socket, the path to import from, and what to import."""
    main(int(sys.argv[1]), json.loads(sys.argv[3]))


def _leave_it_to_the_worker(number: int, frame: object) -> None:
    """Signals that go to all of a group, or of a container, are the worker's to obey."""


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


class _Template:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._leashes: dict[int, socket.socket] = {}
        """By process."""
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = os.pipe()
        for end in (self._woken, self._wakes):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _leave_it_to_the_worker)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def serve(self) -> NoReturn:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    self._fork()
                elif key.fileobj == self._woken:
                    os.read(self._woken, 4096)
                    self._reap()
                elif key.data in self._leashes:
                    self._let_go(key.data)

    def _fork(self) -> None:
        asked, files, _, _ = socket.recv_fds(self._control, 1, FORKED_WITH)
        if not asked:
            for pid in self._leashes:
                _kill_group(pid)
            os._exit(0)
        connection, leash, last_words = files
        own = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_child(own, connection, leash, last_words)
        with contextlib.suppress(OSError):  # it may have done so itself, and be gone
            os.setpgid(pid, pid)
        for file in (connection, last_words):
            os.close(file)
        self._leashes[pid] = socket.socket(fileno=leash)
        self._selector.register(leash, selectors.EVENT_READ, pid)

    def _become_child(self, template: int, connection: int, leash: int, last_words: int) -> NoReturn:
        try:
            os.setpgid(0, 0)
            if self._libc is not None:
                self._libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
            if os.getppid() != template:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for file in (self._woken, self._wakes, leash):
                os.close(file)
            for each in (self._control, *self._leashes.values()):
                each.close()
            faulthandler.enable(last_words, all_threads=False)
            work(socket.socket(fileno=connection))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _let_go(self, pid: int) -> None:
        """The worker wants it dead, or is."""
        self._selector.unregister(self._leashes[pid])
        _kill_group(pid)

    def _reap(self) -> None:
        for pid in list(self._leashes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            _kill_group(pid)
            with self._leashes.pop(pid) as leash:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(leash)
                with contextlib.suppress(OSError):  # the worker is gone
                    leash.send(os.waitstatus_to_exitcode(status).to_bytes(STATUS_BYTES, "big", signed=True))


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):  # nothing of it is left
        os.killpg(pid, signal.SIGKILL)
