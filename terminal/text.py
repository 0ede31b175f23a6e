"""Text that may go to a terminal: untrusted text escaped, columns counted, secrets masked, values shortened."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from steplog.eventstore.sealed import hidden

ELLIPSIS = "…"
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")
"""Part of how some scripts and emoji are written; they move nothing."""
_STYLING = re.compile(r"\x1b\[[0-9;]*m")
_USER_INFO = re.compile(r"(://[^:/@\s]*):[^\s]*@")
_SECRET_PARAMETER = re.compile(r"((?:pass(?:word)?|sslpassword)=)[^&\s']+", re.IGNORECASE)


def escape(text: str) -> str:
    """The text with every character that could move, colour or reorder what a terminal shows written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written_out(character) if _is_unseen(character) else character for character in text)


def one_line(text: str) -> str:
    """The text on one line, its white space collapsed, escaped."""
    return escape(" ".join(text.split()))


def escape_json(document: str) -> str:
    """The same JSON, with escape sequences for characters that a terminal would obey."""
    if document.isascii():
        return document.replace("\x7f", "\\u007f")
    return "".join(
        json.dumps(character)[1:-1] if character != "\n" and _is_unseen(character) else character
        for character in document
    )


def masked(text: str) -> str:
    """The text with the passwords of database URLs in it replaced by stars."""
    return _SECRET_PARAMETER.sub(r"\1***", _USER_INFO.sub(r"\1:***@", text))


def short(value: Any, columns: int = 60) -> str:
    """A JSON value on one line of at most that many columns, for people: without what is sealed in it."""
    text = json.dumps(hidden(value), ensure_ascii=False, default=str)
    return shorten(escape(text), columns)


def shorten(text: str, columns: int, ellipsis: str = ELLIPSIS) -> str:
    """The text's beginning, with an ellipsis where something was cut off."""
    return text if width(text) <= columns else clip(text, columns - len(ellipsis)) + ellipsis


def width(text: str) -> int:
    """How many columns of a terminal the text takes; colours take none."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    return sum(_columns(character) for character in _STYLING.sub("", text))


def pad(text: str, columns: int) -> str:
    """The text with spaces behind it up to that many columns."""
    return text + " " * (columns - width(text))


def clip(text: str, columns: int) -> str:
    """As much of the text as fits; colours that begin in it end in it."""
    if width(text) <= columns:
        return text
    kept, used, at = [], 0, 0
    while at < len(text):
        styling = _STYLING.match(text, at)
        if styling:
            kept.append(styling[0])
            at = styling.end()
            continue
        used += _columns(text[at])
        if used <= columns:
            kept.append(text[at])
        at += 1
    return "".join(kept)


def pairs(values: Iterable[tuple[str, Any]], columns: int = 60) -> str:
    """`name = value` of each, values shortened."""
    return ", ".join(f"{escape(name)} = {short(value, columns)}" for name, value in values)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN and character not in _JOINERS


def _written_out(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character) or character.encode("unicode_escape").decode()


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
