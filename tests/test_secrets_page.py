"""The page on secrets: its own workflow, run with a key of its own, looked at, rotated and erased as the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from source_tree import ROOT

from steplog.cli import main

PAGE = (ROOT / "docs" / "secrets.md").read_text(encoding="utf-8")
(WORKFLOW,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
PASSWORD = "hunter2-and-more"


def steplog(*words: str, exits: int = 0) -> Result:
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == exits, result.output + result.stderr
    return result


def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("STEPLOG_DATABASE_URL", "STEPLOG_MODULES", "STEPLOG_KEYS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "sync_accounts.py").write_text(WORKFLOW)
    (tmp_path / "login.json").write_text(f'{{"user": "anna", "password": "{PASSWORD}"}}')
    run = ("run", "sync_accounts", "--input", "@login.json")
    assert "input.password" in steplog(*run, exits=2).stderr
    first = steplog("secrets", "new-key", "k1").stdout.strip()
    monkeypatch.setenv("STEPLOG_KEYS", first)
    steplog(*run)
    shown = steplog("-o", "json", "show", "@last").stdout
    assert shown.count("********") == 2
    second = steplog("secrets", "new-key", "k2").stdout.strip()
    monkeypatch.setenv("STEPLOG_KEYS", f"{second},{first}")
    assert "1 rewrapped" in steplog("secrets", "rewrap").stdout
    monkeypatch.setenv("STEPLOG_KEYS", second)
    steplog("secrets", "erase", "@last", "--reason", "the customer asked for it")
    assert steplog("-o", "json", "show", "@last").stdout.count("(erased)") == 2
    steplog("verify")
    assert PASSWORD.encode() not in b"".join(file.read_bytes() for file in tmp_path.glob("steplog.db*"))
    sys.modules.pop("sync_accounts", None)
