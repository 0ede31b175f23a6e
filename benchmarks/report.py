"""The table: medians, how far the rounds spread, and each contestant's rate beside ours."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Sequence
from statistics import median

import orjson
import psycopg
from contests import Contest
from rounds import Runs


def machine(postgres_version: str | None) -> str:
    """The machine by its cores and versions; it has no name here."""
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()},"
        f" PostgreSQL {postgres_version or 'none'}, SQLite {sqlite3.sqlite_version},"
        f" psycopg {psycopg.__version__}, orjson {orjson.__version__}"
    )


def table(contest: Contest, all_runs: Sequence[Runs]) -> str:
    """One contest in Markdown."""
    ours = all_runs[0].rate
    records_steps = contest.unit == "steps/s"
    rows = [_row(runs, ours, records_steps) for runs in all_runs]
    last = "fsyncs per step" if records_steps else "beside"
    head = f"| {contest.name} | {contest.unit} | lowest–highest | steplog is | {last} |"
    return "\n".join([head, "|---|---:|---:|---:|---:|", *rows, ""])


def _row(runs: Runs, ours: float | None, records_steps: bool) -> str:
    name, rate = runs.contestant.name, runs.rate
    if rate is None:
        return f"| {name} | left out | {_cell(runs.failed or '')} | | |"
    beside = f"{ours / rate:.2f} ×" if ours and runs.contestant.name != "steplog" else ""
    counted = _flushes(runs) if records_steps else _notes(runs)
    spread = f"{_number(min(runs.rates))}–{_number(max(runs.rates))}"
    return f"| {name} | {_number(rate)} | {spread} | {beside} | {counted} |"


def _flushes(runs: Runs) -> str:
    return f"{median(runs.flushes_per_unit):.2f}" if runs.contestant.backend.startswith("PostgreSQL") else ""


def _notes(runs: Runs) -> str:
    return ", ".join(f"{name} {median(notes[name] for notes in runs.notes):.1f}" for name in runs.notes[0])


def settings(results: Iterable[tuple[Contest, Sequence[Runs]]]) -> str:
    """What each contestant read back from its own connection, once per store."""
    seen = {
        f"* {runs.contestant.name}, {runs.contestant.backend}: "
        + ", ".join(f"{name} {value}" for name, value in runs.settings.items())
        for _, all_runs in results
        for runs in all_runs
        if runs.settings
    }
    return "\n".join(["Durability as each read it back:", "", *sorted(seen), ""])


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _cell(text: str) -> str:
    return text.replace("|", "/")[:120]
