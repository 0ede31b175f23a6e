"""Commands that say what steplog is here: its settings and where they come from, its version."""

from __future__ import annotations

from typing import Any

import click

from steplog.commands.sharing import config_of, console_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console


@click.command(cls=Command)
@console_of
def config(console: Console) -> None:
    """Show each setting and where it comes from."""
    from dataclasses import asdict

    from steplog.terminal.table import table
    from steplog.terminal.text import escape, masked

    settings = asdict(config_of(console))
    settings["database_url"]["value"] = masked(settings["database_url"]["value"])
    if console.output != "table":
        console.document(settings)
        return
    values = {
        name: " ".join(map(_said, given["value"])) if isinstance(given["value"], list) else given["value"]
        for name, given in settings.items()
    }
    rows = [[name, escape(values[name] or "") or "(none)", given["origin"]] for name, given in settings.items()]
    console.lines(table(["setting", "value", "from"], rows, console.look))


@click.command(cls=Command)
@console_of
def version(console: Console) -> None:
    """Show which steplog this is, and what it runs on."""
    import platform
    from importlib.metadata import version as installed

    versions = {"steplog": installed("steplog"), "python": platform.python_version()}
    if console.output == "table":
        console.lines([f"steplog {versions['steplog']} (Python {versions['python']})"])
    else:
        console.document(versions)


def _said(value: Any) -> str:
    """A value of a list in a word: of a table that has an address, that."""
    from steplog.terminal.text import masked

    return masked(str(value.get("url", ""))) if isinstance(value, dict) else str(value)


COMMANDS = (config, version)
