"""Canonical JSON: the one byte form of everything in the log.

Sorted keys, no white space, UTF-8. A value is read back type-exact or refused before any write with its path:
orjson alone writes NaN as null and reads integers over 64 bits as floats, both silently.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.limits import (
    DEPTH_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
)

_ESCAPED = {code: f"\\u{code:04x}" for code in [0, *range(0xD800, 0xE000)]}


def encode(value: object, *, path: str = "$", bytes_max: int = PAYLOAD_BYTES_MAX) -> bytes:
    """Canonical bytes of a plain JSON value.

    Raises PayloadRefused with the path of what would not come back as it went in.
    """
    _check(value, path, 0)
    encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(encoded) > bytes_max:
        raise PayloadRefused(path, f"{len(encoded)} bytes are more than the {bytes_max} allowed")
    return encoded


def decode(encoded: bytes | str) -> Any:
    """The plain JSON value of canonical bytes. Raises ValueError where it is no JSON."""
    return orjson.loads(encoded)


def check_name(name: object, what: str) -> str:
    """The name itself, or PayloadRefused if it cannot name a workflow, phase, sub-step, key or signal."""
    if type(name) is not str or not name:
        raise PayloadRefused(what, "a name is a string that is not empty")
    if not name.isprintable():
        raise PayloadRefused(what, f"{name!r} has characters that cannot be printed")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise PayloadRefused(what, f"{len(name.encode())} bytes are more than the {NAME_BYTES_MAX} allowed in a name")
    return name


def escape(text: str, chars_max: int) -> str:
    """Text that can always be recorded: what the log refuses in values is escaped, what is too long is cut."""
    recordable = text.translate(_ESCAPED)
    if len(recordable) <= chars_max:
        return recordable
    return f"{recordable[:chars_max]}… ({len(recordable) - chars_max} more characters)"


def _check(value: object, path: str, depth: int) -> None:
    if type(value) is str:
        _check_text(value, path)
    elif value is None or type(value) is bool:
        return
    elif type(value) is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise PayloadRefused(path, "an integer of more than 64 bits")
    elif type(value) is float:
        if not math.isfinite(value):
            raise PayloadRefused(path, f"{value} has no JSON form")
    elif type(value) is dict or type(value) is list:
        if depth >= DEPTH_MAX:
            raise PayloadRefused(path, f"nested deeper than {DEPTH_MAX}")
        _check_items(value, path, depth)
    else:
        raise PayloadRefused(path, f"{type(value).__qualname__} is no plain JSON")


def _check_items(value: dict[object, object] | list[object], path: str, depth: int) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)
        return
    for key, item in value.items():
        if type(key) is not str:
            raise PayloadRefused(path, f"key {key!r} is no string")
        _check_text(key, path)
        _check(item, f"{path}.{key}", depth + 1)


def _check_text(text: str, path: str) -> None:
    if "\x00" in text:
        raise PayloadRefused(path, "text with a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PayloadRefused(path, f"a lone surrogate at character {error.start}") from None
