"""What the witness of a fault test counted, shown at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Show = Callable[[str, object], None]

_LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Show:
    """Adds a line of figures to the run's summary."""
    lines = request.config.stash.setdefault(_LINES, [])
    return lambda what, figures: lines.append(f"{what}: {figures}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("what the witness counted")
        for line in lines:
            terminalreporter.line(line)
