"""Tables: aligned columns, nothing around them."""

from __future__ import annotations

from collections.abc import Sequence

from steplog.terminal.look import Look
from steplog.terminal.text import pad, width

GAP = "  "


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], look: Look) -> list[str]:
    """One line for the headings and one a row; a column that is empty in every row is left out."""
    shown = [at for at in range(len(headings)) if any(row[at] for row in rows)]
    cells = [[look.dim(headings[at].upper()) for at in shown], *([row[at] for at in shown] for row in rows)]
    widths = [max(width(line[at]) for line in cells) for at in range(len(shown))]
    return [GAP.join(map(pad, line, widths)).rstrip() for line in cells]


def facts(pairs: Sequence[tuple[str, str]], look: Look) -> list[str]:
    """A name and a value a line; what is empty is left out."""
    shown = [(name, value) for name, value in pairs if value]
    columns = max((width(name) for name, _ in shown), default=0)
    return [f"{look.dim(pad(name, columns))}{GAP}{value}" for name, value in shown]
