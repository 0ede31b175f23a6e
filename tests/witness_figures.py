"""What the witnesses of the fault tests counted, and what could not be tested, shown at the end of a run.

Both travel in the tests' reports, which come from every process that the tests are spread over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

Show = Callable[[str, object], None]

_COUNTED = "the witness counted"
_NOT_TESTED = "NOT TESTED "


@pytest.fixture
def show(record_property: Callable[[str, object], None]) -> Show:
    """Adds a line of figures to the run's summary."""
    return lambda what, figures: record_property(_COUNTED, f"{what}: {figures}")


def skip_untested(where: str, why: object) -> NoReturn:
    """Skip the test, and say at the end of the run in red what could not be tested."""
    pytest.skip(f"{_NOT_TESTED}{where}: {why}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [text for report in reports for name, text in report.user_properties if name == _COUNTED]
    if lines:
        terminalreporter.section("what the witness counted")
        for line in sorted(map(str, lines)):
            terminalreporter.line(line)
    reasons = {report.longrepr[2] for report in terminalreporter.getreports("skipped")}
    for reason in sorted(reason.removeprefix("Skipped: ") for reason in reasons):
        if reason.startswith(_NOT_TESTED):
            heading, _, why = reason.partition(": ")
            terminalreporter.section(heading, red=True, bold=True)
            terminalreporter.line(why)
