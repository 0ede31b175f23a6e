"""Stories by the thousand, or one again: `python tests/simulation --help`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from simulation.simulate import Verdict, judge_seed, quietly, replay, shrunk

T = TypeVar("T")

AT_ONCE = 250
"""Seeds that a process is given together."""


class Judged(NamedTuple):
    """What became of some seeds, up to the first that goes wrong."""

    seeds: range
    broken: tuple[int, dict[str, str]] | None
    """That one, and what was found."""
    covered: Counter[str]
    """How many stories had what."""
    events: int
    processor_s: float


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
    parser.add_argument("--branches", type=int, default=20_000, help="at most so many for the branches of the decider")
    return parser.parse_args()


def run(options: argparse.Namespace) -> int:
    """Run the seeds up to the first that goes wrong, and say what they covered."""
    started, done, covered, version_sum, cpu_s = time.monotonic(), 0, Counter[str](), 0, 0.0
    for judged in _each(judge_chunk, _chunks(options.first, options.seeds), options.jobs):
        if judged.broken is not None:
            print(f"after {done + judged.broken[0] - judged.seeds.start + 1} seeds:\n{_told_again(*judged.broken)}")
            return 1
        done += len(judged.seeds)
        covered += judged.covered
        version_sum += judged.events
        cpu_s += judged.processor_s
    seconds = time.monotonic() - started
    speed = f"{done / seconds:.0f} seeds/s, {done / cpu_s:.0f} for each second of processor time"
    print(f"{done} seeds in {seconds:.1f} s ({speed}), {version_sum / done:.1f} events each")
    print("no invariant broken; share of seeds with")
    for name, count in covered.most_common():
        print(f"  {name:26}{100 * count / done:5.1f} %")
    if options.branches:
        _say_branches(options)
    return 0


def _chunks(first: int, count: int) -> list[range]:
    return [range(start, min(start + AT_ONCE, first + count)) for start in range(first, first + count, AT_ONCE)]


def _each(call: Callable[[range], T], chunks: list[range], jobs: int) -> Iterator[T]:
    """What the call makes of each chunk, in order, as long as somebody asks."""
    if jobs == 1:
        yield from map(call, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(call, chunks)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def judge_chunk(seeds: range) -> Judged:
    """What became of the seeds, up to the first that goes wrong."""
    quietly()
    covered, events, started = Counter[str](), 0, time.process_time()
    for seed in seeds:
        verdict: Verdict = judge_seed(seed)
        if verdict.broken:
            return Judged(seeds, (seed, verdict.broken), covered, events, 0.0)
        covered += Counter(set(verdict.covered))
        events += len(verdict.log)
    return Judged(seeds, None, covered, events, time.process_time() - started)


def _told_again(seed: int, found: dict[str, str]) -> str:
    """The shrunk replay; a story that does not go wrong again was not the same twice, which is a fault of its own."""
    verdict = judge_seed(seed)
    if verdict.broken:
        return replay(seed, shrunk(verdict))
    return f"seed {seed} went wrong among others and does not alone: {found}"


def _say_branches(options: argparse.Namespace) -> None:
    """Go on until every branch was taken, or there are no more stories."""
    from simulation.branches import branches_taken

    done, missing, branches = 0, set[str](), 0
    chunks = _chunks(options.first, min(options.branches, options.seeds))
    for seeds, taken in zip(chunks, _each(branches_taken, chunks, options.jobs), strict=False):
        missing = missing & taken.missing if done else taken.missing
        done, branches = done + len(seeds), taken.branches
        if not missing:
            break
    print(f"{done} of them take {branches - len(missing)} of {branches} branches of the decider")
    for branch in sorted(missing):
        print(f"  not taken: engine/{branch}")


if __name__ == "__main__":
    sys.exit(main())
