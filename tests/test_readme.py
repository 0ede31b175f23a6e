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
    (folder / "example.py").write_text(code)
    return subprocess.run([sys.executable, "example.py"], cwd=folder, text=True, check=True, capture_output=True).stdout


def test_hello_world_is_ten_lines_and_says_hello(tmp_path: Path) -> None:
    assert len([line for line in PYTHON[0].splitlines() if line]) <= 10
    assert run(PYTHON[0], tmp_path) == "hello world\n"
    assert (tmp_path / "steplog.db").exists()


def test_hello_world_can_be_imported_without_running(tmp_path: Path) -> None:
    run(PYTHON[0], tmp_path)
    subprocess.run([sys.executable, "-c", "import example"], cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "-m", "steplog", "ls", "-o", "jsonl"], cwd=tmp_path, capture_output=True)
    assert len(done.stdout.splitlines()) == 1


def test_the_job_with_phases_runs(tmp_path: Path) -> None:
    assert run(PYTHON[1] + "\nprint(signup.run(Signup(restaurant='r1')).result(publish))\n", tmp_path) == "1\n"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"(?:bin/|`)steplog (\w[\w-]*)", README))))
def test_a_command_it_names_exists(command: str) -> None:
    assert isinstance(main, Group)
    assert command in main.list_commands(None)  # type: ignore[arg-type]  # a group of ours needs no context for it


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_file_it_links_to_exists(path: str) -> None:
    assert (ROOT / path).exists()
