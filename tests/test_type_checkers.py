"""The type checkers really read the package, and refuse the wrong uses in tests/typed/.

A wrong set-up of mypy or pyright says "Success" and reads nothing; so an error is planted in a copy of every package.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT, package_folders
from wheel import LEFT_OUT

pytestmark = pytest.mark.check

BIN = Path(sys.executable).parent
PLANTED = "\nlen(1)\n"
"""An error that changes nothing of what other modules see: mypy reads again only the files that have one."""
REFUSED = sorted(path.name for path in (ROOT / "tests" / "typed").glob("refused_*.py"))


def planted_files() -> list[str]:
    """One file of each package, as the checkers name it, and one of the tests."""
    folders = ["/".join(["typings", *package.split(".")]) for package in sorted(package_folders())]
    return [f"{folder}/__init__.py" for folder in folders] + ["tests/source_tree.py"]


def shown(refused: str) -> str:
    """Where the copy has a file of wrong uses: under a name that the checkers are not told to leave out."""
    return f"tests/typed/{refused.replace('refused', 'shown')}"


def heads_of_functions(source: str) -> dict[int, int]:
    """The line of `def` for each line of a function's decorators and signature: checkers differ in which they name."""
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        line: node.lineno
        for node in functions
        for line in range(min(part.lineno for part in [node, *node.decorator_list]), node.body[0].lineno)
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with errors planted in it, and with the files of wrong uses shown to the checkers."""
    copy = tmp_path_factory.mktemp("planted") / "tree"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    (copy / "typings").mkdir()
    (copy / "typings" / "steplog").symlink_to("..")
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", copy / ".mypy_cache")
    for name in planted_files():
        with (copy / name).open("a") as file:
            file.write(PLANTED)
    for name in REFUSED:
        (copy / "tests" / "typed" / name).rename(copy / shown(name))
    return copy


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def errors(request: pytest.FixtureRequest, planted: Path) -> set[tuple[str, int]]:
    """File and line of every error that the checker reports in the copy, run there just as in the tree."""
    interpreter = {"mypy": "--python-executable", "pyright": "--pythonpath"}[request.param]
    command = [BIN / request.param, interpreter, sys.executable]
    run = subprocess.run(command, cwd=planted, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    found = re.findall(r"^\s*(\S+\.py):(\d+):.*?\berror\b", run.stdout, flags=re.MULTILINE)
    return {(name.removeprefix(f"{planted}/"), int(line)) for name, line in found}


def test_an_error_planted_in_any_package_or_test_is_reported(errors: set[tuple[str, int]], planted: Path) -> None:
    assert {(name, (planted / name).read_text().count("\n")) for name in planted_files()} <= errors


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_uses_are_refused_where_marked_and_nowhere_else(
    name: str, errors: set[tuple[str, int]], planted: Path
) -> None:
    source = (planted / shown(name)).read_text()
    heads = heads_of_functions(source)
    marked = {number for number, line in enumerate(source.splitlines(), 1) if line.endswith("# refused")}
    found = {line for file, line in errors if file == shown(name)}
    assert marked
    assert {heads.get(line, line) for line in found} == {heads.get(line, line) for line in marked}


def test_bare_imports_are_refused_by_ruff() -> None:
    source = (
        "from engine import worker\nimport eventstore\nfrom .codec import encode\nfrom steplog.eventstore import codec"
    )
    command = [
        str(BIN / "ruff"),
        "check",
        "--output-format=concise",
        "--select=TID",
        "--stdin-filename=engine/planted.py",
        "-",
    ]
    run = subprocess.run(command, input=source, cwd=ROOT, capture_output=True, text=True, check=False)
    assert re.findall(r"planted\.py:(\d+):\d+: (TID\d+)", run.stdout) == [
        ("1", "TID251"),
        ("2", "TID251"),
        ("3", "TID252"),
    ]
