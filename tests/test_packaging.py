"""What is shipped: the packages that the folders hold, the data they need, and nothing that squats another name."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from importlib.metadata import distribution
from typing import Any
from zipfile import ZipFile

import pytest
from source_tree import ROOT, package_folders
from wheel import build_wheel

from steplog.eventstore.migrations import Dialect, known_migrations

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in the wheel."""
    with ZipFile(build_wheel(tmp_path_factory.mktemp("wheel"))) as wheel:
        return {name for name in wheel.namelist() if not name.endswith("/")}


def data_files() -> set[str]:
    """What stands in the package's folders beside code, under the names it must have in the wheel."""
    tops = {package.split(".")[1] for package in package_folders() if "." in package} | {"sql"}
    files = [path.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*") if path.is_file()]
    return {f"steplog/{path.as_posix()}" for path in files if path.suffix not in {".py", ".pyc"}} | {"steplog/py.typed"}


def test_the_packages_listed_are_the_folders_with_code() -> None:
    assert PROJECT["tool"]["setuptools"]["packages"] == sorted(package_folders())


def test_every_package_has_an_init_file() -> None:
    for package in package_folders():
        assert ROOT.joinpath(*package.split(".")[1:], "__init__.py").is_file()


@pytest.mark.parametrize("dialect", ["postgres", "sqlite"])
def test_migrations_are_numbered_in_turn(dialect: Dialect) -> None:
    numbers = [migration.number for migration in known_migrations(dialect)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_root_holds_no_stray_module() -> None:
    assert {path.name for path in ROOT.glob("*.py")} <= {"__init__.py", "__main__.py", "cli.py"}


def test_both_type_checkers_are_pointed_at_every_package() -> None:
    wanted = {f"typings/steplog/{package.split('.')[1]}" for package in package_folders() if "." in package}
    wanted |= {"typings/steplog/*.py", "tests", "benchmarks"}
    assert set(PROJECT["tool"]["mypy"]["files"]) == wanted
    assert set(PROJECT["tool"]["pyright"]["include"]) == wanted


def test_no_top_level_folder_can_be_imported_under_a_bare_name() -> None:
    banned = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert {package.split(".")[1] for package in package_folders() if "." in package} | {"api", "cli"} == set(banned)


def test_the_tests_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_wheel_installs_one_top_level_name(shipped: set[str]) -> None:
    version = PROJECT["project"]["version"]
    assert {name.partition("/")[0] for name in shipped} == {"steplog", f"steplog-{version}.dist-info"}


def test_the_wheel_holds_the_packages_and_nothing_beside_them(shipped: set[str]) -> None:
    folders = {name.rpartition("/")[0].replace("/", ".") for name in shipped if name.endswith(".py")}
    assert folders == package_folders()


def test_the_wheel_holds_the_data_beside_the_code_and_no_other(shipped: set[str]) -> None:
    assert {name for name in shipped if name.startswith("steplog/") and not name.endswith(".py")} == data_files()


@pytest.mark.parametrize("pattern", ["steplog/py.typed", "steplog/sql/*/*.sql", "steplog/examples/registration/*.csv"])
def test_the_wheel_holds_what_the_code_cannot_do_without(shipped: set[str], pattern: str) -> None:
    assert any(fnmatch(name, pattern) for name in shipped)


def test_the_wheel_carries_the_licence(shipped: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in shipped)


def test_the_installed_distribution_offers_the_command() -> None:
    (command,) = distribution("steplog").entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("steplog", "steplog.cli:main")


def test_the_installed_distribution_offers_the_pytest_plugin() -> None:
    (plugin,) = distribution("steplog").entry_points.select(group="pytest11")
    assert (plugin.name, plugin.value) == ("steplog", "steplog.testing.plugin")


def test_what_tests_need_is_no_runtime_dependency() -> None:
    assert not [each for each in PROJECT["project"]["dependencies"] if each.startswith(("pytest", "hypothesis"))]
