"""Reading a menu's CSV: what is taken, what counts as one dish, and refusals that name their line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from registration_service import SMALL_MENU, menu_text

from steplog.examples.registration.menu import HEADER, MenuError, read_menu
from steplog.examples.registration.places import SAMPLE_MENU


def menu_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "menu.csv"
    path.write_bytes(text.encode())
    return path


def row(**values: str) -> str:
    """A line of the menu; what is not given is the least there must be."""
    given = {"menuName": "All", "categoryName": "Mains", "dishName": "Hake", "dishPrice": "9"} | values
    return ",".join(given.get(column, "") for column in HEADER) + "\r\n"


def with_header(*rows: str) -> str:
    return ",".join(HEADER) + "\r\n" + "".join(rows)


def refusal(path: Path) -> str:
    with pytest.raises(MenuError) as refused:
        read_menu(path)
    return str(refused.value)


def test_sample_is_a_menu_of_a_few_hundred_rows_as_restaurants_hand_them_in() -> None:
    menu = read_menu(SAMPLE_MENU)
    assert 80 <= len(menu.rows) <= 400
    assert len(menu.dishes) < len(menu.rows), "no dish is listed twice"
    assert sum(not row.dishID for row in menu.rows) > len(menu.rows) / 4, "ids are rarely empty"
    assert len(menu.categories) > 10
    described = "".join(row.dishDescription + row.categoryDescription for row in menu.rows)
    assert all(mark in described for mark in ',"\n'), "nothing needs quoting"


def test_prices_are_exact_decimals(tmp_path: Path) -> None:
    menu = read_menu(menu_file(tmp_path, with_header(row(dishPrice="22.50"), row(dishName="Skate", dishPrice="0.10"))))
    assert [each.dishPrice for each in menu.rows] == [Decimal("22.50"), Decimal("0.10")]


def test_quoted_commas_quotes_and_newlines_belong_to_their_field(tmp_path: Path) -> None:
    quoted = '"Leeks, ""grilled""\nand oil"'
    menu = read_menu(menu_file(tmp_path, with_header(row(dishDescription=quoted))))
    assert menu.rows[0].dishDescription == 'Leeks, "grilled"\nand oil'


def test_byte_order_mark_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    menu = read_menu(menu_file(tmp_path, "\ufeff" + with_header(row(), "\r\n", row(dishName="Skate"))))
    assert [each.dishName for each in menu.rows] == ["Hake", "Skate"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"dishPrice": "cheap"}, "line 3: dishPrice 'cheap'"),
        ({"dishPrice": ""}, "line 3: dishPrice ''"),
        ({"dishPrice": "-1"}, "line 3: dishPrice '-1'"),
        ({"dishPrice": "NaN"}, "line 3: dishPrice 'NaN'"),
        ({"dishName": " "}, "line 3: dishName ' '"),
        ({"categoryName": ""}, "line 3: categoryName ''"),
    ],
)
def test_wrong_value_is_refused_with_its_line_and_column(tmp_path: Path, values: dict[str, str], why: str) -> None:
    assert why in refusal(menu_file(tmp_path, with_header(row(), row(**values))))


def test_line_is_that_of_the_file_after_a_field_with_newlines(tmp_path: Path) -> None:
    text = with_header(row(dishDescription='"one\ntwo\nthree"'), row(dishPrice="x"))
    assert "menu.csv: line 5: dishPrice 'x'" in refusal(menu_file(tmp_path, text))


def test_several_wrong_lines_are_named_together_and_the_rest_counted(tmp_path: Path) -> None:
    message = refusal(menu_file(tmp_path, with_header(*(row(dishPrice="x") for _ in range(5)))))
    assert "line 2" in message
    assert "line 4" in message
    assert message.endswith("; and 2 more")


def test_row_with_a_field_too_few_is_refused_with_both_counts(tmp_path: Path) -> None:
    assert "line 2: 15 fields (expected 16)" in refusal(menu_file(tmp_path, with_header(row().replace(",", "", 1))))


def test_quote_that_is_never_closed_is_refused_with_the_line_it_begins_on(tmp_path: Path) -> None:
    assert "line 3: unexpected end of data" in refusal(menu_file(tmp_path, with_header(row(), row(menuID='"open'))))


def test_header_without_a_column_is_refused_by_the_column(tmp_path: Path) -> None:
    text = with_header(row()).replace(",dishPrice", "", 1)
    assert "line 1: the header lacks dishPrice" in refusal(menu_file(tmp_path, text))


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "menu.csv"
    path.write_bytes(with_header(row()).encode() + row(dishName="Crème").encode("latin-1"))
    assert "line 3: not UTF-8" in refusal(path)


@pytest.mark.parametrize("text", ["", ",".join(HEADER) + "\r\n"])
def test_menu_without_dishes_is_refused(tmp_path: Path, text: str) -> None:
    assert "no dishes" in refusal(menu_file(tmp_path, text))


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    assert "menu.csv: cannot be read" in refusal(tmp_path / "menu.csv")


def test_same_dish_under_two_categories_has_one_key(tmp_path: Path) -> None:
    menu = read_menu(menu_file(tmp_path, menu_text(*SMALL_MENU)))
    assert menu.keys[1] == menu.keys[3], "13.50 and 13.5 are one price"
    assert len(menu.dishes) == 3


def test_row_without_an_id_is_the_dish_of_that_name_which_has_one(tmp_path: Path) -> None:
    rows = [("A", "", "Hake", "9", ""), ("B", "d-7", "hake ", "9.00", "")]
    assert len(read_menu(menu_file(tmp_path, menu_text(*rows))).dishes) == 1


@pytest.mark.parametrize(
    "other",
    [("B", "d-2", "Hake", "9", ""), ("B", "d-1", "Hake", "12", ""), ("B", "d-1", "Skate", "9", "")],
    ids=["id", "price", "name"],
)
def test_another_id_price_or_name_makes_another_dish(tmp_path: Path, other: tuple[str, str, str, str, str]) -> None:
    assert len(read_menu(menu_file(tmp_path, menu_text(("A", "d-1", "Hake", "9", ""), other))).dishes) == 2


def test_tags_are_told_apart_and_kept_once(tmp_path: Path) -> None:
    menu = read_menu(menu_file(tmp_path, with_header(row(tags='"Vegan, nuts;vegan|  "'))))
    assert menu.rows[0].tag_list == ["vegan", "nuts"]
