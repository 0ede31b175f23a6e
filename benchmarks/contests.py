"""What is measured, of whom: each contest is one piece of work, done by ours, by peers, and by what limits both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Backend = Literal["PostgreSQL", "PostgreSQL, 1 ms away", "SQLite", "its own server"]


@dataclass(frozen=True)
class Contestant:
    """A program, and what it does the work on."""

    name: str
    program: str
    backend: Backend
    work: dict[str, Any] = field(default_factory=dict)
    """What of the work is its own, over the contest's."""


@dataclass(frozen=True)
class Contest:
    """Work for all its contestants; the first is ours."""

    name: str
    unit: str
    work: dict[str, Any]
    contestants: tuple[Contestant, ...]
    when: Literal["always", "asked"] = "always"


def contests() -> list[Contest]:
    """All of them, in the order of the table."""
    stepping = [*_one_at_a_time(), *_at_once(), *_transactional(), *_fleets()]
    return [*stepping, *_appends(), *_reading(), *_memory(), *_status_api()]


def _one_at_a_time() -> list[Contest]:
    work = {"what": "jobs", "jobs": 3, "steps": 100, "at_once": 1}
    return [
        Contest("no-op steps, one job at a time, PostgreSQL", "steps/s", work, _all_peers("PostgreSQL")),
        Contest(
            "no-op steps, one job at a time, PostgreSQL 1 ms away",
            "steps/s",
            work,
            (
                _ours("PostgreSQL, 1 ms away"),
                _dbos("PostgreSQL, 1 ms away"),
                _absurd("PostgreSQL, 1 ms away"),
                _inserts("PostgreSQL, 1 ms away"),
            ),
        ),
        Contest(
            "no-op steps, one job at a time, SQLite",
            "steps/s",
            work,
            (_ours("SQLite"), _dbos("SQLite"), _inserts("SQLite")),
        ),
    ]


def _at_once() -> list[Contest]:
    made = []
    for jobs in (16, 64, 256):
        work = {"what": "jobs", "jobs": 256, "steps": 20, "at_once": jobs}
        on_postgres = (*_all_peers("PostgreSQL")[:-1], _group("PostgreSQL"))
        made.append(Contest(f"no-op steps, {jobs} jobs at once, PostgreSQL", "steps/s", work, on_postgres))
        on_sqlite = (_ours("SQLite"), _dbos("SQLite"), _group("SQLite"))
        made.append(Contest(f"no-op steps, {jobs} jobs at once, SQLite", "steps/s", work, on_sqlite))
    return made


def _transactional() -> list[Contest]:
    """Each step is one commit: of a row of the user's, and of what the log says of the step."""
    alone = {"what": "transactions", "jobs": 3, "steps": 100, "at_once": 1}
    together = {"what": "transactions", "jobs": 64, "steps": 20, "at_once": 16}
    on_postgres, on_sqlite = _transactions("PostgreSQL"), _transactions("SQLite")
    return [
        Contest("transactional steps, one job at a time, PostgreSQL", "steps/s", alone, on_postgres),
        Contest("transactional steps, 16 jobs at once, PostgreSQL", "steps/s", together, on_postgres),
        Contest("transactional steps, one job at a time, SQLite", "steps/s", alone, on_sqlite),
    ]


def _fleets() -> list[Contest]:
    made = []
    for workers in (1, 2):
        work = {"what": "fleet", "jobs": 500, "steps": 5, "at_once": 32, "workers": workers}
        processes = "one worker process" if workers == 1 else f"{workers} worker processes"
        on_postgres = (
            Contestant("steplog", "steplog_fleet.py", "PostgreSQL"),
            Contestant("DBOS", "dbos_fleet.py", "PostgreSQL", {"jobs": 150}),
            Contestant("Absurd", "absurd_fleet.py", "PostgreSQL"),
        )
        name = f"jobs of 5 no-op steps, submitted to {processes}"
        made.append(Contest(f"{name}, PostgreSQL", "jobs/s", work, on_postgres))
        made.append(Contest(f"{name}, SQLite", "jobs/s", work, (Contestant("steplog", "steplog_fleet.py", "SQLite"),)))
    return made


def _appends() -> list[Contest]:
    saves = Contestant("eventsourcing", "eventsourcing_appends.py", "PostgreSQL", {"events": 1_600})
    copied = Contestant("COPY in one commit", "copied_rows.py", "PostgreSQL", {"events": 100_000})
    ours = Contestant("steplog", "steplog_logs.py", "PostgreSQL")
    on_file = Contestant("steplog", "steplog_logs.py", "SQLite")
    saved_on_file = Contestant("eventsourcing", "eventsourcing_appends.py", "SQLite", {"events": 800, "at_once": 1})
    work = {"what": "appends", "events": 25_600, "at_once": 16}
    return [
        Contest("the store's append alone, batches of 64 jobs, PostgreSQL", "events/s", work, (ours, saves, copied)),
        Contest("the store's append alone, batches of 64 jobs, SQLite", "events/s", work, (on_file, saved_on_file)),
    ]


def _reading() -> list[Contest]:
    made = []
    for backend in ("PostgreSQL", "SQLite"):
        for events in (20_000, 1_000_000):
            made.append(
                Contest(
                    f"replay of {events:,} events, {backend}",
                    "events/s",
                    {"what": "replay", "events": events},
                    (
                        Contestant("steplog", "steplog_logs.py", backend),
                        Contestant("eventsourcing", "eventsourcing_replay.py", backend),
                        Contestant("fetch + parse", "steplog_logs.py", backend, {"what": "fetch and parse"}),
                    ),
                    when="always" if events == 20_000 else "asked",
                )
            )
        ours = (Contestant("steplog", "steplog_logs.py", backend),)
        work = {"what": "opening", "steps": 1_000}
        made.append(Contest(f"opening a job of 2,000 events, {backend}", "jobs/s", work, ours))
    return made


def _memory() -> list[Contest]:
    work = {"what": "memory", "jobs": 10_000}
    return [
        Contest(
            f"memory of 10,000 jobs in flight, {backend}",
            "jobs/MB",
            work,
            (Contestant("steplog", "steplog_logs.py", backend),),
            when="asked",
        )
        for backend in ("PostgreSQL", "SQLite")
    ]


def _status_api() -> list[Contest]:
    """Asked for one job, and watched: what a viewer waits for, and what it costs the database, is in the notes."""
    made = []
    for backend in ("PostgreSQL", "SQLite"):
        ours = (Contestant("steplog", "steplog_api.py", backend),)
        for name, what in (("GET of a job", "requests"), ("GET of a job that is known", "unchanged requests")):
            work = {"what": what, "events": 2_000, "at_once": 8}
            made.append(Contest(f"status API, {name}, {backend}", "requests/s", work, ours, when="asked"))
        for viewers in (1, 200):
            work = {"what": "viewers", "events": 20, "at_once": viewers}
            name = f"status API, a job watched by {viewers}, {backend}"
            made.append(Contest(name, "events/s", work, ours, when="asked"))
    return made


def _all_peers(backend: Backend) -> tuple[Contestant, ...]:
    return (_ours(backend), _dbos(backend), _absurd(backend), _restate(), _inserts(backend))


def _ours(backend: Backend) -> Contestant:
    return Contestant("steplog", "steplog_jobs.py", backend)


def _dbos(backend: Backend) -> Contestant:
    return Contestant("DBOS", "dbos_jobs.py", backend)


def _absurd(backend: Backend) -> Contestant:
    return Contestant("Absurd", "absurd_jobs.py", backend)


def _restate() -> Contestant:
    return Contestant("Restate", "restate_jobs.py", "its own server")


def _inserts(backend: Backend) -> Contestant:
    return Contestant("one INSERT per commit", "insert_commits.py", backend)


def _group(backend: Backend) -> Contestant:
    return Contestant("raw group commit", "group_commits.py", backend)


def _transactions(backend: Backend) -> tuple[Contestant, ...]:
    return (
        Contestant("steplog", "steplog_transactions.py", backend),
        Contestant("one commit of three rows", "transaction_commits.py", backend),
    )
