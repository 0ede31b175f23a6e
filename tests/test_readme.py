"""The README's examples run, and the commands and files it names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click import Group
from source_tree import ROOT

from steplog.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)


def run(code: str, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-"], input=_as_file(code, folder), cwd=folder, text=True, check=True, capture_output=True
    ).stdout


def _as_file(code: str, folder: Path) -> str:
    """Handlers are looked up by module, as in a file of the user's."""
    (folder / "example.py").write_text(code)
    return "import sys; sys.path.insert(0, '.'); import example; sys.stdout.flush()"


def test_hello_world_is_ten_lines_and_says_hello(tmp_path: Path) -> None:
    assert len([line for line in PYTHON[0].splitlines() if line]) <= 10
    assert run(PYTHON[0], tmp_path) == "hello world\n"
    assert (tmp_path / "steplog.db").exists()


def test_the_job_with_phases_runs(tmp_path: Path) -> None:
    assert run(PYTHON[1] + "\nprint(signup.run(Signup(restaurant='r1')).result(publish))\n", tmp_path) == "1\n"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"(?:bin/|`)steplog (\w[\w-]*)", README))))
def test_a_command_it_names_exists(command: str) -> None:
    assert isinstance(main, Group)
    assert command in main.list_commands(None)  # type: ignore[arg-type]  # a group of ours needs no context for it


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_file_it_links_to_exists(path: str) -> None:
    assert (ROOT / path).exists()
