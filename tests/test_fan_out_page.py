"""The page on fan-outs, and what the command line shows of one: the page's own workflow, run and looked at."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from source_tree import ROOT

from steplog.cli import main

PAGE = (ROOT / "docs" / "fan-out.md").read_text(encoding="utf-8")
(WORKFLOW,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
BROKEN = WORKFLOW.replace("    return dish.price\n", "    assert dish.price != 7, 'no price'\n    return dish.price\n")

Run = Callable[..., Result]


@pytest.fixture
def steplog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command in a folder with the page's workflow in `fan_out_page`; fails unless it exits as expected."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, exits: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    yield run
    sys.modules.pop("fan_out_page", None)


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def test_the_pages_workflow_runs_and_is_shown_as_a_group(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "fan_out_page.py").write_text(WORKFLOW)
    steplog("run", "fan_out_page")

    shown = steplog("show", "@last").stdout
    assert re.search(r"import_dish +completed .* 100/100 items", shown)
    assert "dish-7" not in shown
    assert document(steplog("show", "@last", "-o", "json"))["phases"]["main"]["sub_steps"]["total"]["result"] == 4950
    assert "100/100 items" in steplog("timeline", "@last").stdout
    assert len(steplog("timeline", "@last", "-o", "json").stdout) < 4000
    assert "100 items: dish-0, dish-1, dish-2, …" in steplog("events", "@last", "--type", "SubStepExpanded").stdout


def test_a_failed_item_is_found_done_without_and_the_rest_resumed(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "fan_out_page.py").write_text(BROKEN.replace("retry=3", "retry=1"))
    steplog("run", "fan_out_page", exits=1)

    failed = steplog("items", "@last", "import_dish", "--status", "failed").stdout
    assert re.search(r"dish-7 +✗ failed +1 .* AssertionError: no price", failed)
    assert "1 failed" in steplog("show", "@last").stdout
    assert "1 of 100 items failed: dish-7: AssertionError no price" in steplog("ls", "-o", "json").stdout
    steplog("skip", "@last", "import_dish[dish-7]", "--reason", "off the menu")
    steplog("--module", "fan_out_page", "resume", "@last")
    assert document(steplog("show", "@last", "-o", "json"))["phases"]["main"]["sub_steps"]["total"]["result"] == 4943


def test_items_come_in_pages(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "fan_out_page.py").write_text(WORKFLOW)
    steplog("run", "fan_out_page")

    first = document(steplog("items", "@last", "import_dish", "--limit", "60", "-o", "json"))
    rest = document(steplog("items", "@last", "import_dish", "--after", first["next_cursor"], "-o", "json"))
    keys = [item["item"] for item in (*first["items"], *rest["items"])]
    assert keys == [f"dish-{number}" for number in range(100)]
    assert rest["next_cursor"] is None
    assert first["items"][3]["input"] == {"id": "dish-3", "price": 3}
    assert first["items"][3]["result"] == 3
    lines = steplog("items", "@last", "import_dish", "--limit", "2", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["item"] for line in lines] == ["dish-0", "dish-1"]
    assert (
        document(steplog("items", "@last", "import_dish", "--at", "8", "-o", "json"))["items"][0]["status"] != "failed"
    )


def test_what_has_no_items_says_so(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "fan_out_page.py").write_text(WORKFLOW)
    steplog("run", "fan_out_page")
    assert "it is no fan-out" in steplog("items", "@last", "total", exits=4).stderr
    assert "not been listed yet" in steplog("items", "@last", "import_dish", "--at", "2", exits=4).stderr
    assert "dish-9" in steplog("items", "@last", "import_dish", "--after", "dish-999", exits=3).stderr


def test_a_fork_that_did_not_run_yet_shows_what_it_has_inherited(steplog: Run, tmp_path: Path) -> None:
    (tmp_path / "fan_out_page.py").write_text(WORKFLOW)
    steplog("run", "fan_out_page")
    (last,) = re.findall(
        r"^ *(\d+) .*import_dish\[dish-9\]", steplog("events", "@last", "--type", "SubStepCompleted").stdout, re.M
    )

    steplog("fork", "@last", "--at", last)

    assert re.search(r"import_dish +in progress .* \d+/100 items", steplog("show", "@last").stdout)
    assert re.search(r"run .*import_dish", steplog("resume-point", "@last").stdout)
