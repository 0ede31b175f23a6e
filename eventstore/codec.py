"""Canonical JSON: the one byte form of everything in the log.

Sorted keys, no white space, UTF-8. A value is read back type-exact or refused before any write with its path:
orjson alone writes NaN as null, tuples as lists and enum members as their values, all silently.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any

import orjson

from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.limits import (
    DEPTH_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SHOWN_CHARS_MAX,
)

_TEXT = frozenset([str])
_SCALARS = frozenset([str, int, bool, type(None)])
"""What orjson writes as it is; a number with a fraction may have no JSON form."""
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
_NUL = b"\\u0000"
_CONTROL = frozenset(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]))
_ESCAPED = {code: f"\\u{code:04x}" for code in [0, *range(0xD800, 0xE000)]}


def encode(value: object, *, path: str = "$", bytes_max: int = PAYLOAD_BYTES_MAX) -> bytes:
    """Canonical bytes of a plain JSON value.

    Raises PayloadRefused with the path of what would not come back as it went in.
    """
    encoded = _encode_if_surely_exact(value)
    if encoded is None:
        _check(value, path, 0)
        encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(encoded) > bytes_max:
        raise _too_long(path, encoded, bytes_max)
    return encoded


def encode_around(known: Mapping[str, bytes], value: Mapping[str, object], *, path: str) -> bytes:
    """The same of an object, of whose values some are known in their canonical form and not looked at again."""
    looked_at = {name: part for name, part in value.items() if name not in known}
    encode(looked_at, path=path)
    fragments = {name: orjson.Fragment(part) for name, part in known.items()}
    encoded = orjson.dumps({**looked_at, **fragments}, option=orjson.OPT_SORT_KEYS)
    if len(encoded) > PAYLOAD_BYTES_MAX:
        raise _too_long(path, encoded, PAYLOAD_BYTES_MAX)
    return encoded


def _too_long(path: str, encoded: bytes, bytes_max: int) -> PayloadRefused:
    return PayloadRefused(path, f"{len(encoded)} bytes are more than the {bytes_max} allowed")


def decode(encoded: bytes | str) -> Any:
    """The plain JSON value of canonical bytes. Raises ValueError where it is no JSON."""
    return orjson.loads(encoded)


def check_name(name: object, what: str) -> str:
    """The name itself, or PayloadRefused if it cannot name a workflow, phase, sub-step, key or signal."""
    if type(name) is not str or not name:
        raise PayloadRefused(what, "a name is a string that is not empty")
    _check_text(name, what)
    if not _CONTROL.isdisjoint(name):
        raise PayloadRefused(what, f"{_shown(name)} has control characters")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise PayloadRefused(what, f"{len(name.encode())} bytes are more than the {NAME_BYTES_MAX} allowed in a name")
    return name


def escape(text: str, chars_max: int) -> str:
    """Text that can always be recorded: what the log refuses in values is escaped, what is too long is cut."""
    exact = str.__str__(text)
    recordable = exact[: chars_max + 1].translate(_ESCAPED)
    if len(recordable) <= chars_max:
        return recordable
    return f"{recordable[:chars_max]}… ({len(exact)} characters in all)"


def _encode_if_surely_exact(value: object) -> bytes | None:
    """The canonical bytes, or None where `_check` has to look closer: several times cheaper than asking it first."""
    if not _is_plain(value, 0):
        return None
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # integers too long, lone surrogates
        return None
    return None if _NUL in encoded else encoded


def _is_plain(value: object, depth: int) -> bool:
    """Whether a container holds nothing that orjson would write as something else; asks for kinds first."""
    items: Collection[Any]
    if type(value) is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        items = value.values()
    elif type(value) is list:
        items = value
    else:
        return False
    if depth >= DEPTH_MAX:
        return False
    if _SCALARS.issuperset(map(type, items)):
        return True
    for item in items:
        kind = type(item)
        if kind is float:
            if not isfinite(item):
                return False
        elif kind not in _SCALARS and not _is_plain(item, depth + 1):
            return False
    return True


def _check(value: object, path: str, depth: int) -> None:
    if type(value) is str:
        _check_text(value, path)
    elif value is None or type(value) is bool:
        return
    elif type(value) is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise PayloadRefused(path, "an integer of more than 64 bits")
    elif type(value) is float:
        if not isfinite(value):
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
            raise PayloadRefused(path, f"a key that is no string but {type(key).__qualname__}")
        at = f"{path}.{key}" if _IDENTIFIER.fullmatch(key) else f"{path}[{_shown(key)}]"
        _check_text(key, f"{at} (the key)")
        _check(item, at, depth + 1)


def _check_text(text: str, path: str) -> None:
    if "\x00" in text:
        raise PayloadRefused(path, "text with a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PayloadRefused(path, f"a lone surrogate at character {error.start}") from None


def _shown(text: str) -> str:
    """A text as an error can always show it: quoted, printable ASCII, short."""
    return ascii(text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 3] + "...")
