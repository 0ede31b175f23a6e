"""Long work says how far it is on stderr: a bar on a terminal, a line now and then elsewhere, nothing with -q."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_terminal_screen import rendered

from steplog import Workflow
from steplog.cli import main
from steplog.eventstore.sqlite import SQLiteStore
from steplog.terminal import progress as progress_of
from steplog.terminal.console import Console
from steplog.terminal.progress import Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is due."""
    monkeypatch.setattr(progress_of, "DRAWN_EVERY_S", 0.0)
    monkeypatch.setattr(progress_of, "TOLD_EVERY_S", 0.0)


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """What stderr is from here on: pytest puts its own there when a test begins."""
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    return stderr


def test_bar_is_drawn_over_itself_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    with Progress(Console(no_color=True), "statistics", 2_000, "jobs") as progress:
        progress.at(500)
        assert rendered(terminal.getvalue()) == ["statistics  ███████░░░░░░░░░░░░░░░░░░░░░ 500/2,000 jobs"]
        progress.at(2_100)
        assert rendered(terminal.getvalue()) == ["statistics  ████████████████████████████ 2,100/2,100 jobs"]
    assert rendered(terminal.getvalue()) == []


def test_elsewhere_it_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(Console(), "verify", 3, "jobs") as progress:
        progress.at(1)
    assert capsys.readouterr() == ("", "verify  1/3 jobs\n")


def test_nothing_is_said_with_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    with Progress(Console(quiet=True), "verify", 3, "jobs") as progress:
        progress.at(1)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("command", [["db", "rebuild", "statistics"], ["verify"]], ids=" ".join)
def test_json_stays_whole_beside_it(tmp_path: Path, command: list[str]) -> None:
    wf: Workflow[Any, Any] = Workflow("beside")

    @wf.sub_step
    def step() -> None:
        pass

    store = SQLiteStore(tmp_path / "log.db")
    wf.run(store=store)
    store.close()
    address = f"sqlite:///{tmp_path}/log.db"
    result = CliRunner().invoke(main, ["--db", address, "-o", "json", *command], catch_exceptions=False)
    assert json.loads(result.stdout) in ([], {"name": "statistics", "jobs": 1})
    assert f"{command[-1]}  1/1 jobs" in result.stderr
