"""Stories by the thousand, or one again: `python tests/simulation --help`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from simulation.simulate import Verdict, judge_seed, quietly, replay, shrunk

AT_ONCE = 250
"""Seeds that a process is given together."""


def main() -> int:
    options = parse()
    quietly()
    if options.seed is not None:
        verdict = judge_seed(options.seed)
        print(replay(options.seed, shrunk(verdict) if verdict.broken and not options.whole else verdict))
        return 1 if verdict.broken else 0
    return run(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many stories (10000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (one for each processor)")
    parser.add_argument("--seed", type=int, help="tell this one story, shrunk if it goes wrong")
    parser.add_argument("--whole", action="store_true", help="with --seed: do not shrink it")
    parser.add_argument("--branches", type=int, default=1_000, help="stories for the branches of the decider (1000)")
    return parser.parse_args()


def run(options: argparse.Namespace) -> int:
    """Run the seeds up to the first that goes wrong, and say what they covered."""
    started, done, covered, version_sum = time.monotonic(), 0, Counter[str](), 0
    last = options.first + options.seeds
    chunks = [range(first, min(first + AT_ONCE, last)) for first in range(options.first, last, AT_ONCE)]
    for seeds, broken, shares, events in _judged(chunks, options.jobs):
        if broken is not None:
            print(f"after {done + broken - seeds.start + 1} seeds:\n{replay(broken, shrunk(judge_seed(broken)))}")
            return 1
        done += len(seeds)
        covered += shares
        version_sum += events
    seconds = time.monotonic() - started
    print(f"{done} seeds in {seconds:.1f} s ({done / seconds:.0f} seeds/s), {version_sum / done:.1f} events each")
    print("no invariant broken; share of seeds with")
    for name, count in covered.most_common():
        print(f"  {name:26}{100 * count / done:5.1f} %")
    if options.branches:
        _say_branches(options)
    return 0


def _judged(chunks: list[range], jobs: int) -> Iterator[tuple[range, int | None, Counter[str], int]]:
    if jobs == 1:
        yield from map(judge_chunk, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(judge_chunk, chunks)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def judge_chunk(seeds: range) -> tuple[range, int | None, Counter[str], int]:
    """The seeds, the first that goes wrong, how many stories had what, and how many events there were."""
    quietly()
    covered, events = Counter[str](), 0
    for seed in seeds:
        verdict: Verdict = judge_seed(seed)
        if verdict.broken:
            return seeds, seed, covered, events
        covered += Counter(set(verdict.covered))
        events += len(verdict.log)
    return seeds, None, covered, events


def _say_branches(options: argparse.Namespace) -> None:
    from simulation.branches import branches_not_taken

    sample = range(options.first, options.first + min(options.branches, options.seeds))
    missing = branches_not_taken(sample)
    print(f"branches of the decider that {len(sample)} of them do not take: {len(missing)}")
    for branch in missing:
        print(f"  engine/{branch}")


if __name__ == "__main__":
    sys.exit(main())
