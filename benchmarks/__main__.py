"""Measure steplog beside its peers and its limits: `make bench`, or `python benchmarks --help`."""

from __future__ import annotations

import argparse
import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[1] / "tests")]  # its cluster is ours too

from contests import Contest, contests
from environments import Environments
from postgres_cluster import NoPostgres
from report import machine, settings, table
from rounds import Runs, Servers, run_rounds
from servers import delaying_proxy, postgres, restate

ROUND_TRIP_S = 0.001
QUICK = r"no-op steps, one job at a time, (PostgreSQL|SQLite)$|64 jobs at once, PostgreSQL"


def main() -> None:
    options = parse()
    chosen = [contest for contest in contests() if wanted(contest, options)]
    environments = Environments()
    say("setting the peers up")
    if not options.alone:
        environments.set_up({contestant.name for contest in chosen for contestant in contest.contestants})
    else:
        environments.left_out = dict.fromkeys(("DBOS", "Absurd", "Restate", "eventsourcing"), "not asked for")
    with ExitStack() as stack:
        servers = start_servers(stack, environments)
        version = servers.postgres.version() if servers.postgres else None
        print(f"{machine(version)}\n\nPeers: {peers(environments)}. Medians of {options.rounds} rounds.\n", flush=True)
        results: list[tuple[Contest, list[Runs]]] = []
        for contest in chosen:
            started, runs = time.monotonic(), list[Runs]()
            for number, so_far in enumerate(run_rounds(contest, options.rounds, servers, environments), 1):
                runs = so_far
                say(f"{contest.name}: round {number} of {options.rounds}, {time.monotonic() - started:.0f} s")
            results.append((contest, runs))
            print(table(contest, runs), flush=True)
        print(settings(results), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant (default: 5)")
    parser.add_argument("--quick", action="store_true", help="the three that say most, 3 rounds, under 3 minutes")
    parser.add_argument(
        "--only",
        default="",
        metavar="REGEX",
        help="contests whose name matches; 'status API' runs those, which nothing else does",
    )
    parser.add_argument("--alone", action="store_true", help="without the peers: ours and the limits")
    parser.add_argument("--million", action="store_true", help="replays of 1,000,000 events too")
    parser.add_argument("--memory", action="store_true", help="memory of 10,000 jobs in flight too")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.only = min(options.rounds, 3), options.only or QUICK
    return options


def wanted(contest: Contest, options: argparse.Namespace) -> bool:
    asked = (
        "status API" in options.only
        or (options.million and "1,000,000" in contest.name)
        or (options.memory and "memory" in contest.name)
    )
    return (contest.when == "always" or asked) and re.search(options.only, contest.name) is not None


def start_servers(stack: ExitStack, environments: Environments) -> Servers:
    servers = Servers(None, None, None)
    try:
        servers.postgres = stack.enter_context(postgres())
        servers.proxy_port = stack.enter_context(delaying_proxy(servers.postgres, ROUND_TRIP_S))
    except NoPostgres as error:
        say(f"no PostgreSQL: {error}")
    if environments.restate_server:
        try:
            servers.restate = stack.enter_context(restate(environments.restate_server))
        except RuntimeError as error:
            environments.left_out["Restate"] = str(error)
            environments.pythons.pop("Restate")
    return servers


def peers(environments: Environments) -> str:
    found = [f"{name} {version}" for name, version in environments.versions.items()]
    return ", ".join([*found, *(f"{name} left out ({why})" for name, why in environments.left_out.items())])


def say(text: str) -> None:
    """Progress for whoever waits; the report alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
