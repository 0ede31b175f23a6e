"""The table of mutants at the end of a run: which test caught each, how fast, and what it said."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [dict(report.user_properties) for report in reports if report.when == "call"]
    tried = sorted((row for row in rows if "mutant" in row), key=lambda row: str(row["mutant"]))
    if not tried:
        return
    width = max(len(str(row["mutant"])) for row in tried)
    terminalreporter.section(f"{len(tried)} mutants, {sum(bool(row['caught by']) for row in tried)} caught")
    for row in tried:
        caught_by = row["caught by"] or "NOTHING"
        terminalreporter.line(f"{row['mutant']:{width}}  {row['seconds']:5.1f} s  {caught_by}: {row['why']}")
