"""Jobs that one process submits and others run: what every such program shares. Standard library only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from program import Work

WORKER = "worker"
"""What a program does that is one of the workers."""
ENDING_S_MAX = 10.0
LOOK_S = 0.02
"""How often the submitter looks whether all jobs have ended."""


@contextmanager
def workers(work: Work) -> Iterator[list[dict[str, Any]]]:
    """So many processes of the calling program as workers, until the body ends; then there is what they measured."""
    command = [sys.executable, sys.argv[0], json.dumps(asdict(replace(work, what=WORKER)))]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(work.workers)]
    measured: list[dict[str, Any]] = []
    try:
        yield measured
    finally:
        for process in running:
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                said, _ = process.communicate(timeout=ENDING_S_MAX)
                measured += [json.loads(line) for line in said.splitlines()]
            process.kill()
            process.wait()


def until(done: Callable[[], bool]) -> None:
    """Return once it is so."""
    while not done():
        time.sleep(LOOK_S)
