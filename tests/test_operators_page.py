"""The page on what people do by hand: its commands run on a real failed registration, and say what it says they say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from registration_service import running_service
from source_tree import ROOT

from steplog import Retry, open_store
from steplog.cli import main
from steplog.eventstore.store import HeadQuery
from steplog.examples.registration import registration, workflow
from steplog.examples.registration.effects import count_effects
from steplog.examples.registration.places import service_folder

PAGE = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
BLOCKS = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.S))
NAMES = (
    (r"[0-9a-f]{8}-[0-9a-f-]{27}", "…b617"),
    (r"(…|\.\.\.)[0-9a-f]{4,}", "…b617"),
    (r"resume [0-9a-f]{4,}", "resume b617"),
    (r" \(\d+\)", ""),  # an event more where progress was told in time
)
"""What differs from run to run, and how the page writes it."""


def commands() -> Iterator[tuple[list[str], list[str]]]:
    """Each command's arguments, and the lines that the page says come of it."""
    for block in BLOCKS.split("$ steplog ")[1:]:
        command, *lines = block.splitlines()
        yield shlex.split(command), [as_on_the_page(line) for line in lines]


def as_on_the_page(line: str) -> str:
    for pattern, name in NAMES:
        line = re.sub(pattern, name, line)
    return line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose registrations ask a service of the test's own, and do not wait between attempts."""
    monkeypatch.chdir(tmp_path)
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(registration, "outset", None)
    for step in registration.sub_steps.values():
        monkeypatch.setattr(step.options, "retry", Retry(attempts=3, wait=0, jitter=0))
    work = tmp_path / "steplog-registration" / "harbour-street-kitchen"
    with running_service(service_folder(work)) as url:
        monkeypatch.setattr(workflow, "local_service", lambda folder: url)
        yield tmp_path
    monkeypatch.undo()
    registration.outset = None


def test_the_commands_of_the_page_do_what_it_says(folder: Path) -> None:
    for arguments, told in commands():
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        said = [as_on_the_page(line) for line in result.output.splitlines()]
        assert [line for line in told if line not in said] == [], (arguments, result.output)
        refused = any(line.startswith("steplog: ") for line in told)
        assert (result.exit_code != 0) == (refused or arguments[0] == "run"), (arguments, result.output)


def test_nothing_happened_more_often_than_the_page_lets_it(folder: Path) -> None:
    for arguments, _ in commands():
        CliRunner().invoke(main, arguments, catch_exceptions=False)
        if arguments[0] == "resume":
            break
    with closing(open_store("sqlite:///steplog.db")) as store:
        (head,) = store.heads(HeadQuery())
        account = count_effects(list(store.read(head.job_id)))
    assert head.columns.status == "completed"
    assert account.problems == []
