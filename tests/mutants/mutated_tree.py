"""A copy of the working tree that is imported as `steplog` in its place, and pytest runs in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mutants.mutant import ROOT, Mutant

RUN_S_MAX = 60
SIMULATION_S_MAX = 600
NO_FAILURE_OF_A_TEST = (
    "ImportError",
    "IndentationError",
    "ModuleNotFoundError",
    "NameError",
    "SyntaxError",
    "UnboundLocalError",
)
"""What a mutant that is no working code ends in: that would be found by anything."""


@dataclass(frozen=True)
class Outcome:
    """How one run of pytest ended. `caught_by` is the first test that failed, `why` the first line of what it said."""

    exit_code: int
    passed: int
    caught_by: str
    why: str
    seconds: float
    output: str

    @property
    def is_caught(self) -> bool:
        """Whether a test ran and found a failure, rather than that nothing could run."""
        return self.exit_code == 1 and bool(self.caught_by) and not self.why.startswith(NO_FAILURE_OF_A_TEST)


class MutatedTree:
    """The copy. `STEPLOG_TEST_DSN` spares each run a PostgreSQL server of its own."""

    def __init__(self, parent: Path, dsn: str) -> None:
        self.root = parent / "steplog"
        self._report = parent / "report.xml"
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(parent),
            # Two versions of a file may agree in size and second: what is compiled is not kept.
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_PROFILE": "first failure",
            "STEPLOG_TEST_DSN": dsn,
        }
        for name in _tracked():
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)

    def imported_from(self) -> Path:
        """Where `steplog` comes from for a test that runs in the copy."""
        program = "import steplog.cli; print(steplog.cli.__file__)"
        found = subprocess.run(
            [sys.executable, "-c", program], cwd=self.root, env=self._environment, capture_output=True, text=True
        )
        return Path(found.stdout.strip()).parent

    @contextmanager
    def with_mutant(self, mutant: Mutant) -> Iterator[None]:
        """The mutant's fault is in the copy while the body runs."""
        path = self.root / mutant.file
        text = path.read_text()
        path.write_text(mutant.applied_to(text))
        try:
            yield
        finally:
            path.write_text(text)

    def run(self, tests: Sequence[str], seconds_max: float = RUN_S_MAX) -> Outcome:
        """Run tests of the standard suite in the copy, up to the first failure."""
        options = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--override-ini=junit_family=xunit1"]
        command = [sys.executable, "-m", "pytest", *options, f"--junit-xml={self._report}", *tests]
        self._report.unlink(missing_ok=True)
        started = time.monotonic()
        exit_code, output = self._wait_for(command, seconds_max)
        passed, caught_by, why = self._reported()
        return Outcome(exit_code, passed, caught_by, why, time.monotonic() - started, output)

    def simulate(self, seeds: int) -> str:
        """What the simulation in the copy says of so many stories."""
        command = [sys.executable, "tests/simulation", "--seeds", str(seeds), "--jobs", "1", "--branches", "0"]
        return self._wait_for(command, SIMULATION_S_MAX)[1]

    def _wait_for(self, command: list[str], seconds_max: float) -> tuple[int, str]:
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=seconds_max)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output = f"{process.communicate()[0]}\nstopped after {seconds_max} s"
        return process.returncode, output

    def _reported(self) -> tuple[int, str, str]:
        if not self._report.exists():
            return 0, "", ""
        cases = list(ElementTree.parse(self._report).getroot().iter("testcase"))
        failures = [(case.get("name", ""), failure) for case in cases for failure in case.findall("failure")]
        passed = sum(len(case) == 0 for case in cases)
        if not failures:
            return passed, "", ""
        name, failure = failures[0]
        return passed, name, failure.get("message", "").partition("\n")[0]


def _tracked() -> list[str]:
    """Every file of the working tree that is or could be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
