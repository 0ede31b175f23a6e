"""Which branches of the decider a number of stories take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from coverage import Coverage
from simulation.simulate import judge_seed

from steplog.engine import decider

ENGINE = Path(decider.__file__).parent
RULES = [str(ENGINE / "decider.py"), str(ENGINE / "deciding" / "*.py")]


def branches_not_taken(seeds: Iterable[int]) -> list[str]:
    """Those of the decider that no story of these seeds takes, as `file:line: what stands there -> where to`."""
    coverage = Coverage(branch=True, include=RULES, data_file=None, config_file=False, messages=False)
    coverage.start()
    try:
        for seed in seeds:
            judge_seed(seed)
    finally:
        coverage.stop()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        coverage.json_report(outfile=str(report))
        measured = json.loads(report.read_text())["files"]
    return [line for path, of_file in measured.items() for line in _missing(Path(path), of_file["missing_branches"])]


def _missing(path: Path, branches: list[list[Any]]) -> Iterator[str]:
    lines = path.read_text().splitlines()
    for start, end in branches:
        to = end if end > 0 else "the end"
        yield f"{path.resolve().relative_to(ENGINE.resolve())}:{start}: {lines[start - 1].strip()} -> {to}"
