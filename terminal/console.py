"""Where output goes and how: data to stdout, the rest to stderr, as the options on the command line say."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import click

from steplog.eventstore.sealed import hidden
from steplog.terminal.look import Look
from steplog.terminal.text import escape, escape_json, masked, shorten

Output = Literal["table", "json", "jsonl"]


@dataclass
class Console:
    """The global options, and the two streams in the look they ask for."""

    db: str | None = None
    modules: tuple[str, ...] = ()
    output: Output = "table"
    picture: Path | None = None
    """The file that `-o FILE.svg` names."""
    utc: bool = False
    no_color: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    yes: bool = False
    exit_code: int = 0
    """What the command comes to even if nobody reads its output to the end."""

    @property
    def look(self) -> Look:
        """How stdout is written to."""
        return Look.of(sys.stdout, colour=not self.no_color, utc=self.utc)

    @property
    def look_of_notes(self) -> Look:
        """How stderr is written to."""
        return Look.of(sys.stderr, colour=not self.no_color, utc=self.utc)

    @property
    def columns(self) -> int | None:
        """How wide the terminal is that stdout is; None where it is none."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def lines(self, lines: Iterable[str]) -> None:
        """Data for people; on a terminal a line ends at its edge."""
        columns, look = self.columns, self.look
        for line in lines:
            _write(sys.stdout, f"{shorten(line, columns, look.ellipsis) if columns else line}\n")

    def document(self, value: Any) -> None:
        """Data as JSON: one document, on one line with `-o jsonl`."""
        _write(sys.stdout, f"{_json(value, sys.stdout, indent=None if self.output == 'jsonl' else 2)}\n")

    def documents(self, values: Iterable[Any]) -> None:
        """Data as JSON, one after the other as they come: an array, or a line each with `-o jsonl`."""
        if self.output == "jsonl":
            for value in values:
                _write(sys.stdout, f"{_json(value, sys.stdout)}\n")
            return
        before = "[\n"
        for value in values:
            _write(sys.stdout, f"{before}{_json(value, sys.stdout)}")
            before = ",\n"
        _write(sys.stdout, "[]\n" if before == "[\n" else "\n]\n")

    def draw(self, picture: str) -> None:
        """Write the picture to the file that was named. Raises click.BadParameter where that cannot be."""
        assert self.picture is not None
        try:
            self.picture.write_text(picture, encoding="utf-8")
        except OSError as error:
            raise click.BadParameter(f"{self.picture}: {error.strerror}", param_hint="'-o'") from error
        self.note(f"wrote {self.picture}")

    def flush(self) -> None:
        """Let a reader have what was written."""
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Something beside the data, on stderr; nothing with `-q`."""
        if not self.quiet:
            self.alarm(text)

    def alarm(self, text: str) -> None:
        """Something on stderr that `-q` does not silence."""
        _write(sys.stderr, f"{self.look_of_notes.fit(escape(masked(text)))}\n")
        sys.stderr.flush()

    def command(self, text: str) -> str:
        """A steplog command that can be pasted: with the store and modules of this one."""
        options = ["--db", masked(self.db)] if self.db else []
        options += [word for module in self.modules for word in ("--module", module)]
        return " ".join(["steplog", *map(shlex.quote, options), text])

    def pasteable(self, sentence: str) -> str:
        """A sentence whose steplog commands can be pasted."""
        return sentence.replace("`steplog ", f"`{self.command('')}")


def _json(value: Any, stream: TextIO, indent: int | None = None) -> str:
    text = json.dumps(hidden(value), ensure_ascii=not Look.of(stream).unicode, indent=indent)
    return escape_json(text)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
