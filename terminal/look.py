"""How a stream is written to: colours or none, Unicode or ASCII, relative times or UTC; and each status' glyph."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple, TextIO

import click

from steplog.terminal.text import escape
from steplog.terminal.times import relative


class Mark(NamedTuple):
    """What stands before a status' word."""

    glyph: str
    ascii: str
    colour: str | None
    word: str


_MARKS = {
    "queued": Mark("○", ".", None, "queued"),
    "pending": Mark("○", ".", None, "pending"),
    "waiting": Mark("○", ".", None, "waiting"),
    "running": Mark("▶", ">", "cyan", "running"),
    "in_progress": Mark("▶", ">", "cyan", "in progress"),
    "compensating": Mark("↺", "<", "yellow", "compensating"),
    "retrying": Mark("↻", "~", "yellow", "retrying"),
    "interrupted": Mark("↯", "?", "yellow", "interrupted"),
    "stalled": Mark("↯", "?", "yellow", "stalled"),
    "paused": Mark("‖", "=", "yellow", "paused"),
    "parked": Mark("■", "!", "yellow", "parked"),
    "tolerated": Mark("!", "!", "yellow", "failed"),
    "failed": Mark("✗", "x", "red", "failed"),
    "cancelled": Mark("⊘", "/", "red", "cancelled"),
    "skipped": Mark("⤼", "-", "bright_black", "skipped"),
    "completed": Mark("✓", "+", "green", "completed"),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a stream can show and how a person wants it."""

    colour: bool = False
    unicode: bool = True
    utc: bool = False

    @staticmethod
    def of(stream: TextIO, *, colour: bool = True, utc: bool = False) -> Look:
        """What fits the stream: colours on a terminal unless NO_COLOR is set, ASCII where its encoding is not UTF-8."""
        plain = not colour or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
        return Look(colour=not plain and stream.isatty(), unicode=encoding in ("utf8", "utf8sig"), utc=utc)

    def glyph(self, status: str) -> str:
        """The status' glyph, coloured."""
        mark = _MARKS[status]
        return self.paint(mark.glyph if self.unicode else mark.ascii, mark.colour)

    def word(self, status: str) -> str:
        """The status' word, coloured."""
        return self.paint(_MARKS[status].word, _MARKS[status].colour)

    def status(self, status: str) -> str:
        """Glyph and word."""
        return f"{self.glyph(status)} {self.word(status)}"

    def paint(self, text: str, colour: str | None, *, bold: bool = False) -> str:
        return click.style(text, fg=colour, bold=bold or None) if text and self.colour and (colour or bold) else text

    def dim(self, text: str) -> str:
        return self.paint(text, "bright_black")

    def bold(self, text: str) -> str:
        return self.paint(text, None, bold=True)

    def bar(self, done: float, total: float, columns: int) -> str:
        """How much of the total is done, as a bar."""
        filled = 0 if total <= 0 else max(0, min(columns, int(columns * done / total)))
        full, rest = ("█", "░") if self.unicode else ("#", "-")
        return full * filled + rest * (columns - filled)

    @property
    def ellipsis(self) -> str:
        return "…" if self.unicode else "..."

    def job(self, suffix: str) -> str:
        """An id's suffix as it can be pasted into any command."""
        return f"{self.ellipsis}{escape(suffix)}"

    def when(self, instant: str, now: str) -> str:
        """An instant: relative to now, or as RFC 3339 UTC where that is wanted."""
        return instant if self.utc else relative(instant, now)

    def fit(self, line: str) -> str:
        """A line with what only Unicode has replaced where the stream has none."""
        return line if self.unicode else line.translate(_ASCII).encode("ascii", "backslashreplace").decode()


_ASCII = str.maketrans({"…": "...", "→": "->", "·": "|", "├": "|", "│": "|", "└": "`", "─": "-"})
