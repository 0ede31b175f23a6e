"""The package's source files as their syntax trees, for the tests that hold its structure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_PACKAGES = {"benchmarks", "build", "dist", "docs", "node_modules", "tests", "typings"}
"""Top-level folders that hold no part of the package, beside those whose names begin with a dot."""


@dataclass(frozen=True)
class Module:
    """One source file of the package: its dotted name behind `steplog.` (the root is ``), and its tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        return self.name.partition(".")[0]


@cache
def modules() -> tuple[Module, ...]:
    return tuple(Module(_name_of(path), path, ast.parse(path.read_text(), path.name)) for path in _files())


def package_folders() -> set[str]:
    """Dotted names of the folders with Python files in them, as `packages` in pyproject.toml lists them."""
    return {".".join(["steplog", *path.parent.relative_to(ROOT).parts]) for path in _files()}


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Modules that a tree imports, wherever it does, each with the name taken from it (`` for the module itself)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def _files() -> list[Path]:
    tops = [
        path
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in NO_PACKAGES and not path.name.startswith(".")
    ]
    return sorted([*ROOT.glob("*.py"), *(path for top in tops for path in top.rglob("*.py"))])


def _name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
