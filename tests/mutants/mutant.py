"""A mutant: one deliberate fault in the code, what it breaks, and the tests of the standard suite that must see it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@dataclass(frozen=True)
class Mutant:
    """`before` stands once in `file`; with `after` in its place one of `caught_by` has to fail."""

    name: str
    breaks: str
    file: str
    before: str
    after: str
    caught_by: tuple[str, ...]

    def has_its_place_in(self, text: str) -> bool:
        """Whether there is exactly one place for the fault in the file's text, and it changes something there."""
        return text.count(self.before) == 1 and self.before != self.after

    def applied_to(self, text: str) -> str:
        """The file's text with the fault."""
        assert self.has_its_place_in(text)
        return text.replace(self.before, self.after)


def mutants() -> list[Mutant]:
    """Every mutant of the lists beside this file."""
    return [_mutant(entry) for path in sorted(FOLDER.glob("*.toml")) for entry in _entries(path)]


def _entries(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text())["mutant"]
    return entries


def _mutant(entry: dict[str, Any]) -> Mutant:
    return Mutant(**{**entry, "caught_by": tuple(entry["caught_by"])})
