"""The codec's rules by example: what it refuses and where, what it keeps, how names and texts are made recordable."""

from __future__ import annotations

import math
from collections import OrderedDict, UserDict, UserString, defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from payloads import named, same
from pydantic import BaseModel, SecretStr

from steplog.eventstore.codec import check_name, decode, encode, encode_around, escape
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.limits import DEPTH_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, SHOWN_CHARS_MAX

MIB = 1 << 20


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Rows(list[Any]):
    pass


class Colour(Enum):
    RED = "red"


class Shade(StrEnum):
    DARK = "dark"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Dish:
    name: str


class Menu(BaseModel):
    name: str


class AnyEqual:
    """Claims to be equal to everything, so a check by comparison would let it through."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


NOT_PLAIN = [
    b"bytes",
    bytearray(b"bytes"),
    memoryview(b"bytes"),
    (1, 2),
    Point(1, 2),
    {1, 2},
    frozenset([1]),
    range(3),
    iter([1]),
    1j,
    Decimal("22.50"),
    Fraction(1, 3),
    datetime(2026, 1, 1, tzinfo=UTC),
    date(2026, 1, 1),
    time(12, 0),
    timedelta(1),
    UUID(int=7),
    PurePosixPath("a"),
    Text("text"),
    Number(1),
    Real(1.5),
    Rows(),
    OrderedDict(a=1),
    defaultdict(int),
    UserDict(a=1),
    UserString("a"),
    Colour.RED,
    Shade.DARK,
    Level.HIGH,
    Dish("soup"),
    Menu(name="lunch"),
    SecretStr("secret"),
    orjson.Fragment(b"null"),
    ValueError("an exception"),
    AnyEqual(),
    object(),
    int,
    len,
    ...,
    NotImplemented,
]

REFUSED = [
    *NOT_PLAIN,
    "a\x00b",
    "\ud800",
    "\udfff and more",
    "surrogates in the wrong order \udc00\ud800",
    "two halves \ud83d\ude00",
    math.nan,
    -math.nan,
    math.inf,
    -math.inf,
    2**64,
    -(2**63) - 1,
    10**40,
    -(10**40),
]

KEPT: list[object] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53 - 1,
    2**53,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.0,
    0.1,
    1e-320,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    2.0**53,
    2.0**64,
    1e22,
    123456789.12345678,
    "",
    "\\u0000",
    "\\\\u0000",
    "\\ud800",
    "\x01\x1f\x7f\x85",
    "\u2028\u2029\ufeff\ufffe\uffff",
    "é e\u0301 ß İ",
    "👩‍👩‍👧‍👦 \U0010ffff",
    "</script><!-- ' \" ` ; -- $1 %s {}",
    [],
    {},
    [[], {}],
    {"": ""},
    {"__class__": "os.system", "__proto__": {}, "$sealed": 1, "py/object": "builtins.eval"},
    {'a"b': 1, "a/b": 2, "a\nb": 3, "a.b": 4, "a'b": 5, "\\": 6, "[0]": 7, "é": 8, "\U0001f600": 9},
    {"a": {"b": [1, "2", None, True, 0.5]}},
    {"1": 1, "01": 2, "1.0": 3},
]


def holders(value: object) -> list[tuple[object, str]]:
    """The value at every kind of place, each with the path it has there."""
    return [
        (value, "$"),
        ([value], "$[0]"),
        ([1.5, [], value], "$[2]"),
        ({"a": value}, "$.a"),
        ({"x": 0.5, "a": {"b": [{"c": value}]}}, "$.a.b[0].c"),
    ]


def refusal(value: object, **options: Any) -> PayloadRefused:
    with pytest.raises(PayloadRefused) as caught:
        encode(value, **options)
    return caught.value


@pytest.mark.parametrize("value", REFUSED, ids=named)
def test_what_would_not_come_back_as_it_went_in_is_refused_with_its_path(value: object) -> None:
    for held, path in holders(value):
        assert refusal(held).path == path


@pytest.mark.parametrize("value", KEPT, ids=named)
def test_plain_values_come_back_in_value_and_type(value: object) -> None:
    for held, _ in holders(value):
        assert same(decode(encode(held)), held)


@pytest.mark.parametrize(
    "key",
    [1, 1.5, None, True, b"a", ("a",), Text("a"), Shade.DARK, Level.HIGH, UUID(int=1), date(2026, 1, 1)],
    ids=ascii,
)
def test_keys_that_are_no_strings_are_refused_with_the_path_of_their_object(key: object) -> None:
    for held, path in holders({"good": 1, key: 2}):
        assert refusal(held).path == path


@pytest.mark.parametrize("key", ["a\x00b", "\ud800"], ids=ascii)
def test_keys_whose_text_cannot_be_kept_are_refused(key: str) -> None:
    for held, path in holders({"good": 1, key: 2}):
        assert refusal(held).path == f"{path}[{key!a}] (the key)"


def test_the_first_of_several_offending_values_is_named() -> None:
    assert refusal({"a": [1, {"b": (), "c": math.nan}]}).path == "$.a[1].b"


def test_the_path_of_an_odd_key_is_quoted_and_of_a_long_one_cut() -> None:
    assert refusal({"a.b": math.nan}).path == "$['a.b']"
    assert refusal({"a\nb": math.nan}).path == "$['a\\nb']"
    assert refusal({"é": math.nan}).path == "$['\\xe9']"
    assert len(refusal({"k" * MIB: math.nan}).path) < 2 * SHOWN_CHARS_MAX


@pytest.mark.parametrize("value", REFUSED, ids=named)
def test_a_refusal_can_itself_be_recorded(value: object) -> None:
    for held, _ in holders({"odd \ud800 key\x00": 1} if value == "\ud800" else value):
        assert encode(str(refusal(held)))


def test_the_caller_says_where_the_path_begins() -> None:
    assert (
        str(refusal({"result": math.nan}, path="SubStepCompleted")) == "SubStepCompleted.result: nan has no JSON form"
    )


@pytest.mark.parametrize("depth", [1, 50, DEPTH_MAX])
def test_nesting_within_the_limit_is_kept(depth: int) -> None:
    assert decode(encode(nested(depth))) == nested(depth)


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 254, 255, 1024, 100_000])
def test_nesting_beyond_the_limit_is_refused_at_the_level_too_many(depth: int) -> None:
    assert refusal(nested(depth)).path == "$" + "[0]" * DEPTH_MAX


def test_objects_count_as_nesting_too() -> None:
    value: Any = {}
    for _ in range(DEPTH_MAX):
        value = {"a": value}
    assert refusal(value).path == "$" + ".a" * DEPTH_MAX


def test_a_value_that_holds_itself_is_refused() -> None:
    assert refusal(circular()).why == f"nested deeper than {DEPTH_MAX}"


@pytest.mark.parametrize("mib", [1, 10, 64])
def test_a_text_larger_than_the_limit_is_refused_by_its_size(mib: int) -> None:
    error = refusal({"result": "x" * (mib * MIB)})
    assert f"{mib * MIB + len(encode({'result': ''}))} bytes" in error.why


@pytest.mark.parametrize("mib", [1, 10, 64])
def test_a_text_within_a_raised_limit_is_kept(mib: int) -> None:
    value = {"result": "é" * (mib * MIB // 2)}
    assert decode(encode(value, bytes_max=65 * MIB)) == value


def test_the_limit_is_on_bytes_and_inclusive() -> None:
    fits = "é" * ((PAYLOAD_BYTES_MAX - 2) // 2)
    assert len(encode(fits)) == PAYLOAD_BYTES_MAX
    assert refusal(fits + "x").path == "$"


def test_a_million_keys_are_kept_where_they_fit_and_refused_where_they_do_not() -> None:
    value = {f"k{number}": number for number in range(1_000_000)}
    assert decode(encode(value, bytes_max=32 * MIB)) == value
    assert "bytes are more than" in refusal(value).why


def test_one_offending_value_among_a_million_is_found() -> None:
    value: dict[str, object] = {f"k{number}": number for number in range(1_000_000)}
    value["k777777"] = math.nan
    assert refusal(value).path == "$.k777777"


def test_the_bytes_do_not_depend_on_the_order_of_keys() -> None:
    assert encode({"b": 1, "a": {"d": 1, "c": 2}}) == encode({"a": {"c": 2, "d": 1}, "b": 1})


def test_the_bytes_are_the_shortest_form_in_utf_8_with_sorted_keys() -> None:
    assert encode({"b": [1, 2.0, None], "a": "é\n"}) == b'{"a":"\xc3\xa9\\n","b":[1,2.0,null]}'


@pytest.mark.parametrize(
    "damaged", ["", "{", "nan", "NaN", "[1,]", "'a'", "{1:2}", '"\ud800"', b'"\xff"', b"\x80"], ids=ascii
)
def test_bytes_that_are_no_json_raise_a_value_error(damaged: bytes | str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode(damaged)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "codeGeneration",
        "menu import",
        "a/b",
        "a'b\"c",
        "é",
        "می‌خواهم",
        "日本",
        "👩‍👩‍👧",
        "x" * NAME_BYTES_MAX,
        "__class__",
    ],
)
def test_printable_names_are_names(name: str) -> None:
    assert check_name(name, "sub-step") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        None,
        1,
        b"a",
        Text("a"),
        Shade.DARK,
        "a\nb",
        "a\x00",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "\u2028",
        "\ud800",
        "é" * 128,
        "x" * 256,
    ],
    ids=ascii,
)
def test_other_names_are_refused_by_what_they_should_name(name: object) -> None:
    with pytest.raises(PayloadRefused) as caught:
        check_name(name, "sub-step")
    assert caught.value.path == "sub-step"
    assert encode(str(caught.value))


@pytest.mark.parametrize("text", ["", "plain", "é 👩‍👩‍👧", "two\nlines"])
def test_text_that_can_be_recorded_is_left_as_it_is(text: str) -> None:
    assert escape(text, 100) == text


def test_nul_and_lone_surrogates_are_escaped_where_they_stand() -> None:
    assert escape("a\x00b\ud800c\udfff", 100) == "a\\u0000b\\ud800c\\udfff"


def test_text_that_is_too_long_is_cut_and_says_how_long_it_was() -> None:
    assert escape("abcdef", 3) == "abc… (6 characters in all)"
    assert escape("abc", 3) == "abc"


def test_a_text_of_ten_megabytes_is_cut() -> None:
    assert len(escape("\x00" * (10 * MIB), 1000)) < 1050


def test_a_subclass_of_str_becomes_a_plain_string() -> None:
    class Sly(str):
        __slots__ = ()

        def __len__(self) -> int:
            return 0

        def __str__(self) -> str:
            return self

        def translate(self, table: Any) -> str:
            raise RuntimeError

    assert type(escape(Sly("a\x00"), 10)) is str
    assert escape(Sly("a\x00"), 10) == "a\\u0000"


@pytest.mark.parametrize("known", [["plan"], ["input"], ["input", "plan"]])
def test_what_is_encoded_before_stands_in_its_place(known: list[str]) -> None:
    value = {"workflow": "supper", "plan": {"phases": [{"b": 1, "a": 0.5}]}, "input": ["é\n", None], "attempt": 1}
    assert encode_around({name: encode(value[name]) for name in known}, value, path="JobCreated") == encode(value)


def test_what_stands_around_it_is_refused_with_its_path() -> None:
    with pytest.raises(PayloadRefused) as caught:
        encode_around({"plan": b"{}"}, {"plan": {}, "input": {"price": math.nan}}, path="JobCreated")
    assert caught.value.path == "JobCreated.input.price"


def test_the_limit_is_on_what_stands_around_it_too() -> None:
    large = "x" * (PAYLOAD_BYTES_MAX - 10)
    with pytest.raises(PayloadRefused, match="bytes are more than"):
        encode_around({"plan": encode(large)}, {"plan": large, "input": "soup"}, path="JobCreated")
