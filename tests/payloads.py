"""Values for the payload tests: plain JSON at its edges, what the log must refuse, and where it may be hidden."""

from __future__ import annotations

import math
import re
import string
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st
from pydantic import SecretStr

from steplog.eventstore.limits import INTEGER_MAX, INTEGER_MIN


class Shade(StrEnum):
    DARK = "dark"


EDGES = [
    0.0,
    -0.0,
    2**53 - 1,
    2**53,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    5e-324,
    1e22,
    "\\u0000",
    "__class__",
]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(INTEGER_MIN, INTEGER_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.sampled_from(EDGES),
)
OFFENDERS: list[object] = [
    "nul \x00",
    "\ud800",
    math.nan,
    math.inf,
    -math.inf,
    2**64,
    -(2**63) - 1,
    10**40,
    b"bytes",
    (1, 2),
    frozenset([1]),
    Decimal("1.5"),
    datetime(2026, 1, 1, tzinfo=UTC),
    Shade.DARK,
    SecretStr("secret"),
    {1: 2},
    object(),
]
OFFENDING = st.sampled_from(OFFENDERS)
PLACES = st.lists(
    st.one_of(
        st.integers(0, 3), st.text(string.ascii_letters, min_size=1, max_size=5).filter(lambda key: key != "sibling")
    ),
    max_size=8,
)


def plain_json() -> st.SearchStrategy[Any]:
    """Values that the log must keep exactly."""
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXT, inner, max_size=5)),
        max_leaves=20,
    )


def held_at(value: object, place: list[str | int], sibling: object) -> tuple[object, str]:
    """The value inside containers, each with other things beside it, and the path it has there."""
    held, path = value, ""
    for step in reversed(place):
        held = {"sibling": sibling, step: held} if isinstance(step, str) else [sibling] * step + [held]
        path = f".{step}{path}" if isinstance(step, str) else f"[{step}]{path}"
    return held, path


def named(value: object) -> str:
    """A test's name for the value, the same in every process: without the addresses that a repr may hold."""
    return f"{type(value).__name__}-{re.sub(' at 0x[0-9a-f]+', '', ascii(value))[:20]}"


def same(left: object, right: object) -> bool:
    """Equal in value and in type, all the way down; 0.0 is not -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(item, right[key]) for key, item in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return repr(left) == repr(right)
