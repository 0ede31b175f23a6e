"""How far long work has come, on stderr: a bar drawn over itself on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from steplog.terminal.console import Console

BAR_COLUMNS = 28
DRAWN_EVERY_S = 0.1
TOLD_EVERY_S = 10.0
_OVER_THE_LINE, _TO_ITS_END = "\r", "\x1b[K"


class Progress:
    """A context manager. More may be done than the `total`, which grows with it. Nothing is shown with `-q`."""

    def __init__(self, console: Console, what: str, total: int, unit: str) -> None:
        self._console = console
        self._what = what
        self._total = total
        self._unit = unit
        self._is_drawn = sys.stderr.isatty()
        self._next_s = 0.0 if self._is_drawn else time.monotonic() + TOLD_EVERY_S

    def at(self, done: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if self._console.quiet or now < self._next_s:
            return
        self._next_s = now + (DRAWN_EVERY_S if self._is_drawn else TOLD_EVERY_S)
        line = self._line(done, max(done, self._total))
        if self._is_drawn:
            sys.stderr.write(f"{_OVER_THE_LINE}{line}{_TO_ITS_END}")
            sys.stderr.flush()
        else:
            self._console.note(line)

    def _line(self, done: int, total: int) -> str:
        bar = f"{self._console.look_of_notes.bar(done, total, BAR_COLUMNS)} " if self._is_drawn else ""
        return f"{self._what}  {bar}{done:,}/{total:,} {self._unit}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """The bar makes room for what is said next."""
        if self._is_drawn and not self._console.quiet:
            sys.stderr.write(f"{_OVER_THE_LINE}{_TO_ITS_END}")
            sys.stderr.flush()
