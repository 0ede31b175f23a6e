"""Commands that all take the global options, and a group that turns every error into a sentence and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from steplog.terminal.console import Console
from steplog.terminal.text import masked, one_line

EXIT_INTERRUPTED = 130

ALWAYS_TOLD = ("steplog.engine", "steplog.eventstore.outage")
"""Loggers whose warnings concern whoever waits for a command."""


class Failure(NamedTuple):
    """What a person is told about an error, and the exit code."""

    exit_code: int
    sentence: str
    next_step: str | None


Explain = Callable[[Exception, Console], Failure]
"""From an error to what is said about it."""


class Command(click.Command):
    """A command with the global options, listed apart in its help."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        taken = {name for param in own for name in param.opts}
        return [*own, *(option for option in _global_options() if taken.isdisjoint(option.opts))]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shared = {option.name for option in _global_options()}
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = [(option.name in shared, option.get_help_record(ctx)) for option in options]
        for heading, of_all in (("Options", False), ("Global options", True)):
            shown = [record for is_shared, record in records if record and is_shared is of_all]
            if shown:
                with formatter.section(heading):
                    formatter.write_dl(shown)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class PictureCommand(Command):
    """A command whose `-o` also takes a file to write a picture to."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [_OUTPUT_OR_PICTURE if param is _OUTPUT else param for param in super().get_params(ctx)]


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Root(Group):
    """The whole command line: what a command raises ends here."""

    group_class = Group

    def __init__(self, *args: Any, explain: Explain, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.explain = explain

    def invoke(self, ctx: click.Context) -> Any:
        console = ctx.ensure_object(Console)
        ctx.exit(self._exit_code(ctx, console))

    def _exit_code(self, ctx: click.Context, console: Console) -> int:
        for name in ALWAYS_TOLD:
            if not console.quiet:
                log_to_stderr(name, logging.WARNING)
        try:
            result = click.Group.invoke(self, ctx)
            console.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            return _reader_gone(console)
        except Exception as error:
            return self._report(error, console)
        return result if isinstance(result, int) else 0

    def _report(self, error: Exception, console: Console) -> int:
        if console.debug:
            traceback.print_exception(error)
        failure = self.explain(error, console)
        console.alarm(f"steplog: {one_line(failure.sentence)}")
        if failure.next_step:
            console.alarm(f"  {failure.next_step}")
        return failure.exit_code


def _reader_gone(console: Console) -> int:
    """Whoever read our output has seen enough: end without a word, also when the interpreter flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return console.exit_code


# --- global options --------------------------------------------------------------------------------------------------


def _remember(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """Global options count wherever they stand: before the command or behind it."""
    console = ctx.ensure_object(Console)
    if option.name and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
        given = (*console.modules, *value) if option.name == "modules" else value
        setattr(console, "picture" if isinstance(value, Path) else option.name, given)
        if option.name == "verbose":
            log_to_stderr("steplog", logging.DEBUG)
    return value


def _global_options() -> list[click.Option]:
    return _OPTIONS


def _option(*names: str, **settings: Any) -> click.Option:
    return click.Option(names, expose_value=False, is_eager=True, callback=_remember, **settings)


class _OutputOrPicture(click.Choice[str]):
    """One of the choices, or a file by its name's end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.lower().endswith(".svg"):
            return Path(value)
        return super().convert(value, param, ctx)


_OUTPUTS = ("table", "json", "jsonl")
_OUTPUT = _option("-o", "--output", type=click.Choice(_OUTPUTS), help="For people, or as JSON.")
_OUTPUT_OR_PICTURE = _option(
    "-o",
    "--output",
    type=_OutputOrPicture(_OUTPUTS),
    metavar="[table|json|jsonl|FILE.svg]",
    help="For people, as JSON, or as a picture: what ends in .svg is the file to write.",
)

_OPTIONS = [
    _option("--db", metavar="URL", help="The store: sqlite:///FILE or postgresql://…"),
    _option("--module", "modules", multiple=True, metavar="MODULE", help="Where workflows are declared; repeatable."),
    _OUTPUT,
    _option("--utc", is_flag=True, help="Times as RFC 3339 UTC instead of relative ones."),
    _option("--no-color", is_flag=True, help="No colours (as with NO_COLOR set)."),
    _option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
    _option("-v", "--verbose", is_flag=True, help="The library's log on stderr."),
    _option("--debug", is_flag=True, help="Tracebacks of errors."),
    _option("-y", "--yes", is_flag=True, help="Ask nothing, wait for no key."),
]


class _StderrHandler(logging.Handler):
    """Log lines to whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{one_line(masked(self.format(record)))}\n")


def log_to_stderr(name: str, level: int) -> None:
    """Show what that logger says from the level on, once."""
    logger = logging.getLogger(name)
    above: logging.Logger | None = logger
    while above is not None:
        if any(isinstance(handler, _StderrHandler) for handler in above.handlers):
            return
        above = above.parent
    handler = _StderrHandler(level)
    logger.addHandler(handler)
    logger.setLevel(min(level, logger.level or level))
