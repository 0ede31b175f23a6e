"""`serve`: the status API and the dashboard."""

from __future__ import annotations

import os
from pathlib import Path

import click

from steplog.commands.sharing import config_of, console_of, open_at
from steplog.terminal.command import Command
from steplog.terminal.console import Console

TOKENS = "STEPLOG_API_TOKENS"


@click.command(cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but loopback needs tokens.")
@click.option("--port", type=click.IntRange(0, 65535), default=8400, show_default=True)
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name that it answers to; repeatable.")
@click.option(
    "--tokens", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file of tokens, NAME=SCOPE+SCOPE:SECRET apart by white space; scopes are read, operate, ingest.",
)  # fmt: skip
@click.option("--read-only", is_flag=True, help="Refuse everything that would change something.")
@click.option("--open", "show", is_flag=True, help="Open the dashboard in a browser.")
@console_of
def serve(
    console: Console, host: str, port: int, hosts: tuple[str, ...], tokens: Path | None, read_only: bool, show: bool
) -> None:
    """Serve the status API and the dashboard until Ctrl-C.

    Tokens are read from --tokens, else from STEPLOG_API_TOKENS; without any it answers on this machine only.
    """
    try:
        from steplog.api.app import create_app
        from steplog.api.server import refuse_open_door
        from steplog.api.server import serve as serving
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{error.name} is not installed: pip install 'steplog[server]'") from error
    from getpass import getuser

    from steplog.api.settings import ApiSettings
    from steplog.api.tokens import read_tokens
    from steplog.projections.runner import kept_current, own_projections

    text = tokens.read_text(encoding="utf-8") if tokens else os.environ.get(TOKENS, "")
    settings = ApiSettings(
        modules=config_of(console).modules.value,
        tokens=read_tokens(text),
        hosts=frozenset(name.lower() for name in hosts),
        read_only=read_only,
    )
    refuse_open_door(host, settings)
    store = open_at(console, create=True)

    def started(url: str) -> None:
        console.note(
            f"{url}   dashboard of {store.url}; the API is at {url}/api/v1, its description at {url}/openapi.json"
        )
        if show:
            click.launch(url)

    try:
        store.counts()  # a file is made and migrated here; a server that is not says so before it is served
        with kept_current(store, own_projections(config_of(console).report_table.value)):
            serving(create_app(store, settings, getuser()), host, port, started=started)
    finally:
        store.close()


COMMANDS = (serve,)
