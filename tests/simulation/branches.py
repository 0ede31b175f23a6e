"""Which branches of the decider a number of stories take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from coverage import Coverage
from simulation.simulate import judge_seed

from steplog.engine import decider

SOURCE = decider.__file__


def branches_not_taken(seeds: Iterable[int]) -> list[str]:
    """Those of `engine/decider.py` that no story of these seeds takes, as `line: what stands there -> where to`."""
    coverage = Coverage(branch=True, include=[SOURCE], data_file=None, config_file=False, messages=False)
    coverage.start()
    try:
        for seed in seeds:
            judge_seed(seed)
    finally:
        coverage.stop()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        coverage.json_report(outfile=str(report))
        (measured,) = json.loads(report.read_text())["files"].values()
    lines = Path(SOURCE).read_text().splitlines()
    return [
        f"{start}: {lines[start - 1].strip()} -> {end if end > 0 else 'the end'}"
        for start, end in measured["missing_branches"]
    ]
