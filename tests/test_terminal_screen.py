"""A frame drawn again in place, as a terminal would show it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pytest

from steplog.terminal.screen import Screen

_SEQUENCE = re.compile(r"\x1b\[(\d*)([A-Za-z])|\r|\n|[^\x1b\r\n]")


def rendered(written: str) -> list[str]:
    """What a terminal shows after that output: only what the screen uses is understood."""
    lines, row, column = [""], 0, 0
    for match in _SEQUENCE.finditer(written):
        if match[0] == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif match[0] == "\r":
            column = 0
        elif match[2] == "A":
            row -= int(match[1])
        elif match[2] == "K":
            lines[row] = lines[row][:column]
        elif match[2] == "J":
            lines[row:] = [lines[row][:column]]
        else:
            lines[row] = lines[row][:column].ljust(column) + match[0] + lines[row][column + 1 :]
            column += 1
    return [line for line in lines if line]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def screen(stream: io.StringIO) -> Screen:
    return Screen(stream, size=lambda: (20, 5))


@pytest.fixture
def seen(stream: io.StringIO) -> Callable[[], list[str]]:
    return lambda: rendered(stream.getvalue())


def test_a_frame_takes_the_place_of_the_one_before(screen: Screen, seen: Callable[[], list[str]]) -> None:
    screen.draw(["running 1/3", "long line here", "third"])
    screen.draw(["done", "short"])
    assert seen() == ["done", "short"]


def test_a_frame_never_is_larger_than_the_terminal(screen: Screen, seen: Callable[[], list[str]]) -> None:
    screen.draw(["x" * 99] * 9)
    screen.draw(["y" * 99] * 9)
    assert seen() == ["y" * 19] * 4


def test_what_is_printed_meanwhile_stands_above_the_frame(screen: Screen, seen: Callable[[], list[str]]) -> None:
    screen.draw(["frame"])
    with screen.over_standard_streams():
        sys.stdout.write("from a handler\n")
        sys.stderr.write("and its log\n")
    screen.draw(["frame 2"])
    assert seen() == ["from a handler", "and its log", "frame 2"]


def test_an_unfinished_line_waits_and_is_never_lost(screen: Screen, seen: Callable[[], list[str]]) -> None:
    screen.draw(["frame"])
    screen.print("half")
    assert seen() == ["frame"]
    screen.print(" whole\nrest")
    assert seen() == ["half whole", "frame"]
    screen.clear()
    assert seen() == ["half whole", "rest"]


def test_standard_streams_come_back(screen: Screen) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(RuntimeError), screen.over_standard_streams():
        raise RuntimeError
    assert (sys.stdout, sys.stderr) == before
