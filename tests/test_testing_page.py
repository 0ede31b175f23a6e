"""The page on testing: its examples pass as the tests they are, and tell the story that it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from source_tree import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
WORKFLOW, *EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(STORY,) = re.findall(r"```text\n(.*?)```", PAGE, re.S)
NAMES = ["test_handlers.py", "test_booking.py", "test_crash_safety.py", "test_careless.py", "test_projections.py"]
TESTS = 8

CONFTEST = """
import asyncio, inspect, pytest
from hypothesis import settings

settings.register_profile("quick", max_examples=20, deadline=None)
settings.load_profile("quick")

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))
        return True
"""
"""Runs coroutines, as pytest-asyncio or anyio would."""


def without_ids(story: str) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", story)


def test_the_examples_pass(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "booking.py").write_text(WORKFLOW)
    for name, example in zip(NAMES, EXAMPLES, strict=True):
        (tmp_path / name).write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-rP", "-W", "error", "-p", "no:randomly", *NAMES]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{TESTS} passed" in run.stdout, run.stdout + run.stderr
    assert without_ids(STORY) in without_ids(run.stdout)
