"""Importing a menu into the restaurant's database: in durable batches, from any position, any number of times."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from registration_service import SMALL_MENU, menu_text

from steplog.examples.registration import restaurant_db
from steplog.examples.registration.menu import Menu, read_menu
from steplog.examples.registration.places import SAMPLE_MENU


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "restaurant.db"


@pytest.fixture
def small_menu(tmp_path: Path) -> Menu:
    path = tmp_path / "menu.csv"
    path.write_text(menu_text(*SMALL_MENU), encoding="utf-8")
    return read_menu(path)


def import_all(database: Path, menu: Menu, key: str = "key-1", start: int = 0) -> list[int]:
    return list(restaurant_db.import_menu(database, menu, key, start))


def contents(database: Path) -> list[object]:
    with closing(sqlite3.connect(database)) as connection:
        return [
            connection.execute(query).fetchall()
            for query in (
                "select * from dishes order by key",
                "select * from listings order by dish, category",
                "select * from categories order by name",
            )
        ]


def test_import_has_each_distinct_dish_once(database: Path) -> None:
    menu = read_menu(SAMPLE_MENU)
    assert import_all(database, menu)[-1] == len(menu.rows)
    assert restaurant_db.imported_dishes(database) == set(menu.dishes)


def test_dish_under_several_categories_is_listed_in_each(database: Path, small_menu: Menu) -> None:
    import_all(database, small_menu)
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "select category from listings join dishes on dish = key where name = 'Pad Thai (Tofu)' order by category"
        ).fetchall()
    assert found == [("Mains",), ("Vegan",)]


def test_each_position_is_durable_when_it_is_told(database: Path) -> None:
    menu = read_menu(SAMPLE_MENU)
    positions: list[int] = []
    for position in restaurant_db.import_menu(database, menu, "key-1", batch_rows=50):
        assert restaurant_db.imported_dishes(database) == set(menu.keys[:position])
        positions.append(position)
    assert positions == [50, 100, 150, 200, 250, 260]


@pytest.mark.parametrize("position", [0, 20, 140, 260])
def test_import_resumed_at_any_position_leaves_the_same_database(tmp_path: Path, database: Path, position: int) -> None:
    menu = read_menu(SAMPLE_MENU)
    import_all(database, menu)
    broken_off = tmp_path / "broken_off.db"
    for done in restaurant_db.import_menu(broken_off, menu, "key-1"):
        if done >= position:
            break
    import_all(broken_off, menu, start=position)
    assert contents(broken_off) == contents(database)


def test_importing_twice_changes_nothing_and_is_seen(database: Path, small_menu: Menu) -> None:
    import_all(database, small_menu)
    once = contents(database)
    import_all(database, small_menu)
    assert contents(database) == once
    assert set(restaurant_db.row_imports(database, "key-1").values()) == {2}
    assert not restaurant_db.row_imports(database, "another key")


def test_batch_that_fails_leaves_nothing_behind(database: Path, small_menu: Menu) -> None:
    torn = Menu(small_menu.rows, small_menu.keys[:2], small_menu.digest)
    with pytest.raises(ValueError, match="shorter"):
        import_all(database, torn)
    assert restaurant_db.imported_dishes(database) == set()


def test_next_menu_replaces_the_dishes_of_the_last_one(tmp_path: Path, database: Path, small_menu: Menu) -> None:
    import_all(database, read_menu(SAMPLE_MENU))
    import_all(database, small_menu)
    assert restaurant_db.imported_dishes(database) == set(small_menu.dishes)


def test_dishes_that_differ_in_their_parenthesis_become_an_option_set(database: Path, small_menu: Menu) -> None:
    import_all(database, small_menu)
    assert restaurant_db.derive_option_sets(database) == 1
    assert restaurant_db.derive_option_sets(database) == 1
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("select option_set, name from options order by name").fetchall()
    assert found == [("Pad Thai", "Prawn"), ("Pad Thai", "Tofu")]


def test_tags_are_counted_by_dish_however_often_they_are_derived(database: Path, small_menu: Menu) -> None:
    import_all(database, small_menu)
    expected = {"nuts": 2, "shellfish": 1, "vegan": 1, "vegetarian": 1}
    assert restaurant_db.derive_item_tags(database) == expected
    assert restaurant_db.derive_item_tags(database) == expected
