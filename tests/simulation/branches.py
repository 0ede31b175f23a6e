"""Which branches of the decider a number of stories take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from coverage import Coverage
from simulation.simulate import judge_seed, quietly

from steplog.engine import decider

ENGINE = Path(decider.__file__).parent
RULES = ("decider.py", "deciding/*.py")


class Taken(NamedTuple):
    """How many branches the decider has, and which no story takes: `file:line: what stands there -> where to`."""

    branches: int
    missing: set[str]


def branches_taken(seeds: Iterable[int]) -> Taken:
    """Which branches of the decider the stories of these seeds take."""
    quietly()
    coverage = Coverage(
        branch=True,
        include=[str(ENGINE / pattern) for pattern in RULES],
        data_file=None,
        config_file=False,
        messages=False,
    )
    coverage.start()
    try:
        for seed in seeds:
            judge_seed(seed)
    finally:
        coverage.stop()
    data = coverage.get_data()
    data.touch_files([str(path) for pattern in RULES for path in ENGINE.glob(pattern)])
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        coverage.json_report(outfile=str(report))
        measured = json.loads(report.read_text())["files"]
    return Taken(
        sum(of_file["summary"]["num_branches"] for of_file in measured.values()),
        {line for path, of_file in measured.items() for line in _missing(Path(path), of_file["missing_branches"])},
    )


def _missing(path: Path, branches: list[list[Any]]) -> Iterator[str]:
    lines = path.read_text().splitlines()
    for start, end in branches:
        to = end if end > 0 else "the end"
        yield f"{path.resolve().relative_to(ENGINE.resolve())}:{start}: {lines[start - 1].strip()} -> {to}"
