"""A part of the terminal that is drawn again in place, below everything that anybody else writes meanwhile."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from steplog.terminal.text import clip

_UP = "\x1b[{}A"
_ERASE_TO_LINE_END = "\x1b[K"
_ERASE_BELOW = "\x1b[J"

Size = Callable[[], tuple[int, int]]
"""Columns and rows of the terminal."""


def terminal_size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return size.columns, size.lines


def is_screen(stream: TextIO) -> bool:
    """Whether lines on it can be drawn again."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Screen:
    """The last lines of a terminal. May be used from several threads."""

    def __init__(self, stream: TextIO, size: Size = terminal_size) -> None:
        self._stream = stream
        self._size = size
        self._frame: list[str] = []
        self._unfinished = ""
        self._lock = threading.RLock()

    @property
    def rows(self) -> int:
        """How many lines a frame can have."""
        return max(1, self._size()[1] - 1)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines instead of the frame before; a line that is too long ends at the edge."""
        columns, rows = self._size()[0], self.rows
        with self._lock:
            frame = [clip(line, columns - 1) for line in lines[:rows]]
            drawn = "".join(f"{line}{_ERASE_TO_LINE_END}\n" for line in frame)
            self._write(f"{self._to_top()}{drawn}{_ERASE_BELOW}")
            self._frame = frame

    def clear(self) -> None:
        """Leave no frame behind."""
        with self._lock:
            self._write(f"{self._to_top()}{_ERASE_BELOW}{self._unfinished}")
            self._frame, self._unfinished = [], ""

    def print(self, text: str) -> None:
        """Write what others print above the frame; an unfinished line appears when it is finished."""
        with self._lock:
            whole, newline, self._unfinished = (self._unfinished + text).rpartition("\n")
            if newline:
                frame = "".join(f"{line}\n" for line in self._frame)
                self._write(f"{self._to_top()}{_ERASE_BELOW}{whole}\n{frame}")

    @contextmanager
    def over_standard_streams(self) -> Iterator[None]:
        """What the program prints meanwhile goes above the frame."""
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = _Above(self, self._stream)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before

    def _to_top(self) -> str:
        return f"\r{_UP.format(len(self._frame))}" if self._frame else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Above(io.TextIOBase):
    """A text stream whose lines appear above a screen's frame."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen = screen
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        return self._stream.encoding

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._screen.print(text)
        return len(text)
