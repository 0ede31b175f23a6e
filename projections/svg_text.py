"""Text in a picture: cut to the room there is, and never markup."""

from __future__ import annotations

import re
import unicodedata
from html import escape

_UNSEEN = re.compile(
    r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""What no XML may contain, and what would turn the text around it."""


def cut(text: str, columns: int) -> str:
    """As much of it as fits into so many columns."""
    widths = [2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text]
    if sum(widths) <= columns:
        return text
    kept = 0
    while kept < len(text) and sum(widths[: kept + 1]) < columns:
        kept += 1
    return f"{text[:kept]}…"


def escaped(text: str) -> str:
    """Text that stays text: markup is written out, and what must not be in it is replaced."""
    return escape(_UNSEEN.sub("\ufffd", text))
