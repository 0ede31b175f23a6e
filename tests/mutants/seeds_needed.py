"""How many stories each mutant of the simulation needs, and how short its replay gets, as a table.

A row for each whose name has the word given, or for all: the seeds up to the first story that goes wrong, what is
broken, and of the shrunk replay the lines of the story and the events of its log.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from mutants.mutant import Mutant, mutants
from mutants.mutated_tree import MutatedTree

OF_THE_SIMULATION = "simulation: "
SEEDS = 1_000


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [mutant for mutant in mutants() if mutant.name.startswith(OF_THE_SIMULATION) and wanted in mutant.name]
    print("| mutant | seeds | broken | story | events |\n|---|---:|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        tree = MutatedTree(Path(folder), "")
        found = [print_row(tree, mutant) for mutant in chosen]
    print(f"\n{sum(found)} of {len(found)} found within {SEEDS} seeds")
    return 0 if all(found) else 1


def print_row(tree: MutatedTree, mutant: Mutant) -> bool:
    """Whether the mutant was found."""
    with tree.with_mutant(mutant):
        told = tree.simulate(SEEDS)
    name = mutant.name.removeprefix(OF_THE_SIMULATION)
    after = re.match(r"after (\d+) seeds:\nseed \d+: ([^:\n]+)", told)
    if after is None:
        print(f"| {name} | not found: {told[-200:]!r} | | | |", flush=True)
        return False
    _, story, log = told.split("\n\n", 2) if told.count("\n\n") >= 2 else (told, "", "")
    print(f"| {name} | {after[1]} | {after[2]} | {len(story.splitlines())} | {len(log.splitlines())} |", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
