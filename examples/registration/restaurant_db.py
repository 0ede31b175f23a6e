"""The restaurant's own database: imports a menu in durable batches, and derives option sets and item tags from it.

Everything here may be done again with the same outcome: rows are put in by natural keys.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager
from pathlib import Path

from steplog.examples.registration.menu import Menu, MenuRow

BATCH_ROWS = 20
LOCK_WAIT_S = 30.0

_SCHEMA = Path(__file__).with_name("restaurant.sql")
_VARIANT = re.compile(r"(?P<dish>.+?)\s*\((?P<option>[^()]+)\)")

_PUT_CATEGORY = """
insert into categories (menu, name, display_name, description) values (?, ?, ?, ?)
on conflict (menu, name) do update set display_name = excluded.display_name, description = excluded.description
"""
_PUT_DISH = """
insert into dishes (key, menu, dish_id, name, price, type, description, display_name, print_name, tags)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (key) do update set
    dish_id = case excluded.dish_id when '' then dish_id else excluded.dish_id end,
    name = excluded.name, type = excluded.type, description = excluded.description,
    display_name = excluded.display_name, print_name = excluded.print_name, tags = excluded.tags
"""
_PUT_LISTING = "insert into listings (dish, menu, category) values (?, ?, ?) on conflict do nothing"
_PUT_BATCH = "insert into import_batches (idempotency_key, first_row, last_row) values (?, ?, ?)"


@contextmanager
def open_restaurant(path: Path) -> Iterator[sqlite3.Connection]:
    """The restaurant's database, made if it is not there; a transaction that commits unless the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as connection:
        connection.execute("pragma foreign_keys = on")
        connection.executescript(_SCHEMA.read_text(encoding="utf-8"))
        with connection:
            yield connection


def import_menu(path: Path, menu: Menu, key: str, start: int = 0, batch_rows: int = BATCH_ROWS) -> Iterator[int]:
    """Import the menu's rows from `start` on, batch by batch; yields how many rows are in, each time durably.

    With the last batch, dishes that the menu does not have are taken out.
    """
    for first in range(start, len(menu.rows), batch_rows):
        last = min(first + batch_rows, len(menu.rows))
        with open_restaurant(path) as restaurant:
            for row, dish in zip(menu.rows[first:last], menu.keys[first:last], strict=True):
                _put(restaurant, row, dish)
            restaurant.execute(_PUT_BATCH, (key, first + 1, last))
            if last == len(menu.rows):
                _remove_all_but(restaurant, menu.dishes.keys())
        yield last


def derive_option_sets(path: Path) -> int:
    """Make an option set of a menu's dishes that differ only in their parenthesis; how many sets there are.

    `Pad Thai (Tofu)` and `Pad Thai (Prawn)` become the set `Pad Thai` with the options Tofu and Prawn.
    """
    with open_restaurant(path) as restaurant:
        variants: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for menu, dish, name in restaurant.execute("select menu, key, name from dishes order by name, key"):
            match = _VARIANT.fullmatch(name)
            if match:
                variants[menu, match["dish"]].append((match["option"], dish))
        sets = {name: options for name, options in variants.items() if len(options) > 1}
        restaurant.execute("delete from options")
        restaurant.executemany(
            "insert into options (menu, option_set, name, dish) values (?, ?, ?, ?)",
            [(*name, option, dish) for name, options in sets.items() for option, dish in options],
        )
    return len(sets)


def derive_item_tags(path: Path) -> dict[str, int]:
    """Tag each dish with the tags its row gave; how many dishes have each tag."""
    with open_restaurant(path) as restaurant:
        tagged = [
            (dish, tag)
            for dish, tags in restaurant.execute("select key, tags from dishes")
            for tag in tags.splitlines()
        ]
        restaurant.execute("delete from item_tags")
        restaurant.executemany("insert into item_tags (dish, tag) values (?, ?)", tagged)
    return dict(sorted(Counter(tag for _, tag in tagged).items()))


def imported_dishes(path: Path) -> set[str]:
    """The keys of the dishes in the database."""
    with open_restaurant(path) as restaurant:
        return {dish for (dish,) in restaurant.execute("select key from dishes")}


def row_imports(path: Path, key: str) -> Counter[int]:
    """How often each row of the file was imported under that idempotency key."""
    with open_restaurant(path) as restaurant:
        batches = restaurant.execute(
            "select first_row, last_row from import_batches where idempotency_key = ?", (key,)
        ).fetchall()
    return Counter(row for first, last in batches for row in range(first, last + 1))


def _put(restaurant: sqlite3.Connection, row: MenuRow, dish: str) -> None:
    restaurant.execute(
        _PUT_CATEGORY, (row.menuName, row.categoryName, row.categoryDisplayName, row.categoryDescription)
    )
    restaurant.execute(
        _PUT_DISH,
        (
            dish,
            row.menuName,
            row.dishID,
            row.dishName,
            str(row.dishPrice),
            row.dishType,
            row.dishDescription,
            row.displayName,
            row.printName,
            "\n".join(row.tag_list),
        ),
    )
    restaurant.execute(_PUT_LISTING, (dish, row.menuName, row.categoryName))


def _remove_all_but(restaurant: sqlite3.Connection, dishes: Set[str]) -> None:
    present = {dish for (dish,) in restaurant.execute("select key from dishes")}
    restaurant.executemany("delete from dishes where key = ?", [(dish,) for dish in present - dishes])
