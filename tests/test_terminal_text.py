"""Text for terminals: escaping, columns, masking, times, tables."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steplog.terminal.look import Look
from steplog.terminal.table import facts, table
from steplog.terminal.text import clip, escape, escape_json, masked, one_line, short, shorten, width
from steplog.terminal.times import duration, instant_of, relative

NOW = "2026-11-23T12:00:00.000000Z"


@given(st.text())
def test_escaped_text_has_nothing_a_terminal_obeys(text: str) -> None:
    unseen = {unicodedata.category(character) for character in escape(text)} & {"Cc", "Cs", "Zl", "Zp", "Co"}
    assert not unseen
    assert not set(escape(text)) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists))
def test_escaped_json_is_the_same_json(value: object) -> None:
    document = escape_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(document) == value
    assert all(escape(line) == line for line in document.split("\n"))


@pytest.mark.parametrize("text", ["été", "日本語", "naïve ✓", "👩‍🍳", "می‌خواهم"])
def test_people_s_own_writing_stays_readable(text: str) -> None:
    assert escape(text) == text


def test_one_line_keeps_no_line_breaks() -> None:
    assert one_line(" a\n  b\tc\r\nd ") == "a b c d"


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("\x1b[31mred\x1b[0m", 3), ("", 0)]
)
def test_width_counts_columns_not_characters(text: str, columns: int) -> None:
    assert width(text) == columns


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])), st.integers(0, 20))
def test_clipped_text_fits(text: str, columns: int) -> None:
    assert width(clip(text, columns)) <= columns
    assert text.startswith(clip(text, columns)) or width(text) > columns


def test_clipping_ends_the_colours_that_it_cuts_into() -> None:
    assert clip("\x1b[31mred alert\x1b[0m", 3) == "\x1b[31mred\x1b[0m"


def test_shortened_text_says_that_something_is_missing() -> None:
    assert shorten("abcdef", 4) == "abc…"
    assert short({"a": "x" * 99}, 10) == '{"a": "xx…'


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:secret@host/db",
        "postgresql://user:se@cret@host/db",
        "postgresql://user:se/cret@host/db",
        "postgresql://host/db?user=me&password=secret&x=1",
        "no store at 'postgresql://h/d?sslpassword=secret'",
    ],
)
def test_passwords_are_masked(text: str) -> None:
    assert "cret" not in masked(text)
    assert "***" in masked(text)


def test_what_has_no_password_is_left_alone() -> None:
    assert masked("sqlite:///a:b@c.db") == "sqlite:///a:b@c.db"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.012, "12ms"), (0.1, "0.1s"), (8.14, "8.1s"), (9.97, "10s"), (59.6, "1m00s"), (64, "1m04s")],
        *[(3599.7, "1h00m"), (7500, "2h05m"), (86400 * 3 + 3600 * 7, "3d07h"), (-1, "0ms")],
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_instants_are_told_relative_to_now() -> None:
    assert relative("2026-11-23T11:59:00.000000Z", NOW) == "1m00s ago"
    assert relative("2026-11-23T12:00:04.000000Z", NOW) == "in 4.0s"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2h", "2026-11-23T10:00:00.000000Z"),
        ("90s ago", "2026-11-23T11:58:30.000000Z"),
        ("2026-11-23T13:00:00+02:00", "2026-11-23T11:00:00.000000Z"),
        ("2026-11-23T11:00:00Z", "2026-11-23T11:00:00.000000Z"),
    ],
)
def test_times_are_read_as_people_write_them(text: str, instant: str) -> None:
    assert instant_of(text, NOW) == instant


@pytest.mark.parametrize("text", ["", "yesterday", "2 fortnights", "12"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        instant_of(text, NOW)


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    assert table(["job", "key", "name"], [["…b617", "", "日本"], ["…a1", "", "b"]], Look()) == [
        "JOB    NAME",
        "…b617  日本",
        "…a1    b",
    ]


def test_facts_without_a_value_are_left_out() -> None:
    assert facts([("store", "x"), ("schema", ""), ("a", "y")], Look()) == ["store  x", "a      y"]
