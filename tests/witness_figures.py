"""What the witness of a fault test counted, shown at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Show = Callable[[str, object], None]

_LINES = pytest.StashKey[list[str]]()
_MISSING = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Show:
    """Adds a line of figures to the run's summary."""
    lines = request.config.stash.setdefault(_LINES, [])
    return lambda what, figures: lines.append(f"{what}: {figures}")


@pytest.fixture(scope="session")
def show_missing(request: pytest.FixtureRequest) -> Show:
    """Says at the end of the run, in red, what could not be tested."""
    missing = request.config.stash.setdefault(_MISSING, [])
    return lambda what, why: missing.append((what, str(why)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("what the witness counted")
        for line in lines:
            terminalreporter.line(line)
    for what, why in config.stash.get(_MISSING, []):
        terminalreporter.section(what, red=True, bold=True)
        terminalreporter.line(why)
