"""The page on handlers: its workflow runs as it stands there, and it leaves out nothing of a step."""

from __future__ import annotations

import inspect
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from source_tree import ROOT

from steplog import Step

PAGE = (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8")
WORKFLOW, TABLE = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_the_pages_workflow_runs_and_writes_to_the_table_that_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEPLOG_DATABASE_URL", raising=False)
    page: dict[str, Any] = {}
    exec(WORKFLOW + TABLE, page)

    job = page["orders"].run()

    assert (job.result(page["book"]), job.context.open) == ("booked by attempt 1", True)
    page["database"].close()
    database = sqlite3.connect("steplog.db")
    assert database.execute("select amount from bookings").fetchall() == [(22.0,)]
    database.close()


def test_everything_of_a_step_is_named() -> None:
    declared = {name for name in dir(Step) if not name.startswith("_")}
    declared |= set(inspect.signature(Step.__init__).parameters) - {"self", "channel"}
    assert declared <= set(re.findall(r"step\.(\w+)", PAGE))
