"""Another process that does what a test tells it, line by line, until it is killed or its input ends.

Run as a program it reads commands as JSON lines and answers each with one; imported it starts such a process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


class Process:
    """A child running a program of the tests, as a context manager; it is gone at the end."""

    def __init__(self, program: Path, *arguments: object) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, command: str, *arguments: Any) -> None:
        """Give a command without waiting for its answer."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._child.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer to the oldest command not answered yet."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, f"the process ended: {self._child.wait()}"
        return json.loads(line)

    def ask(self, command: str, *arguments: Any) -> Any:
        self.send(command, *arguments)
        return self.answer()

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has cleaned up."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        """SIGSTOP: it lives and does nothing."""
        self._child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


def serve(commands: dict[str, Callable[..., Any]]) -> None:
    """Answer the commands of standard input until it ends."""
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(commands[command](*arguments)) + "\n")
        sys.stdout.flush()
