"""Reads a menu: the CSV that restaurants hand in, checked line by line, and which of its rows are the same dish.

RFC 4180 quoting, the header as given, prices as decimals. Every refusal names its line.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROBLEMS_SHOWN = 3

Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(min_length=1, max_length=500)]
Price = Annotated[Decimal, Field(ge=0, max_digits=12, allow_inf_nan=False)]


class MenuError(ValueError):
    """The menu cannot be read; the message names file and line."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        more = len(problems) - PROBLEMS_SHOWN
        shown = "; ".join(problems[:PROBLEMS_SHOWN])
        super().__init__(f"{path.name}: {shown}{f'; and {more} more' if more > 0 else ''}")
        self.path = path
        self.problems = problems


class MenuRow(BaseModel):
    """One line of the menu: a dish in a category. Fields are the header's columns, in its order."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    menuID: Text
    menuName: Name
    menuDisplayName: Text
    menuDescription: Text
    categoryID: Text
    categoryName: Name
    categoryDisplayName: Text
    categoryDescription: Text
    dishID: Text
    dishName: Name
    dishPrice: Price
    dishType: Text
    dishDescription: Text
    displayName: Text
    printName: Text
    tags: Text

    @property
    def shown_name(self) -> str:
        """What guests read."""
        return self.displayName or self.dishName

    @property
    def tag_list(self) -> list[str]:
        """The tags, without repetition, in the order given."""
        parts = (part.strip().lower() for part in re.split(r"[,;|]", self.tags))
        return list(dict.fromkeys(part for part in parts if part))


HEADER = list(MenuRow.model_fields)


@dataclass(frozen=True, slots=True)
class Menu:
    """A menu's rows in the file's order, each with the key of its dish, and the digest of the file."""

    rows: list[MenuRow]
    keys: list[str]
    digest: str

    @property
    def dishes(self) -> dict[str, MenuRow]:
        """Each distinct dish by its key, as its last row has it."""
        return dict(zip(self.keys, self.rows, strict=True))

    @property
    def categories(self) -> dict[str, list[MenuRow]]:
        """The rows of each category, in the menu's order."""
        found: dict[str, list[MenuRow]] = defaultdict(list)
        for row in self.rows:
            found[row.categoryDisplayName or row.categoryName].append(row)
        return dict(found)


def read_menu(path: Path) -> Menu:
    """The menu in that file. Raises MenuError with the lines that are wrong."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise MenuError(path, [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise MenuError(path, [f"line {line}: not UTF-8"]) from error
    rows = _rows(path, text)
    return Menu(rows, dish_keys(rows), hashlib.sha256(content).hexdigest()[:16])


def dish_keys(rows: list[MenuRow]) -> list[str]:
    """The natural key of each row's dish: rows with the same one are the same dish, listed more than once.

    A dish is known by its menu, name, price and id. Ids are often left out: a row without one means the dish of that
    name and price which has an id, unless there are several.
    """
    ids: dict[tuple[str, str, Decimal], set[str]] = defaultdict(set)
    for row in rows:
        if row.dishID:
            ids[_name_and_price(row)].add(row.dishID)
    return [_key(row, ids[_name_and_price(row)]) for row in rows]


def _key(row: MenuRow, ids: set[str]) -> str:
    menu, name, price = _name_and_price(row)
    dish_id = row.dishID or (next(iter(ids)) if len(ids) == 1 else "")
    return json.dumps([menu, name, f"{price:f}", dish_id], ensure_ascii=False)


def _name_and_price(row: MenuRow) -> tuple[str, str, Decimal]:
    name = " ".join(row.dishName.casefold().split())
    return row.menuName.casefold(), name, row.dishPrice.normalize()


def _rows(path: Path, text: str) -> list[MenuRow]:
    rows: list[MenuRow] = []
    problems: list[str] = []
    for line, record in _records(path, text):
        if line == 1:
            _check_header(path, record)
            continue
        if len(record) != len(HEADER):
            problems.append(f"line {line}: {len(record)} fields (expected {len(HEADER)})")
            continue
        try:
            rows.append(MenuRow.model_validate(dict(zip(HEADER, record, strict=True))))
        except ValidationError as error:
            problems.extend(f"line {line}: {problem}" for problem in _problems(error))
    if problems:
        raise MenuError(path, problems)
    if not rows:
        raise MenuError(path, ["no dishes"])
    return rows


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it begins on; blank lines are no records."""
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    begins = 1
    try:
        for record in reader:
            if record:
                yield begins, record
            begins = reader.line_num + 1
    except csv.Error as error:
        raise MenuError(path, [f"line {begins}: {error}"]) from error


def _check_header(path: Path, record: list[str]) -> None:
    given = [name.strip() for name in record]
    if given != HEADER:
        missing = [name for name in HEADER if name not in given]
        why = f"lacks {', '.join(missing)}" if missing else f"is not {','.join(HEADER)}"
        raise MenuError(path, [f"line 1: the header {why}"])


def _problems(error: ValidationError) -> list[str]:
    return [
        f"{problem['loc'][0]} {problem['input']!r}: {problem['msg'].lower()}"
        for problem in error.errors(include_url=False)
    ]
