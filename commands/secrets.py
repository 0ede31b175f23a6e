"""Commands around the secrets of jobs: new keys, keys that take over from older ones, and erasing for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from steplog.commands.operating import confirm, find, report, user
from steplog.commands.sharing import console_of, job_argument, store_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console

if TYPE_CHECKING:
    from steplog.engine.rewrapping import Rewrapped


@click.group()
def secrets() -> None:
    """Seal the secrets of jobs, take up a new key, erase what nobody may read any more."""


@secrets.command("new-key", cls=Command)
@click.argument("key_id", metavar="ID", default="k1")
@console_of
def new_key(console: Console, key_id: str) -> None:
    """Make a key for STEPLOG_KEYS, named ID; put it before the others, and it seals from then on."""
    from steplog.engine.keyring import new_key as made

    console.lines([made(key_id)])


@secrets.command(cls=Command)
@console_of
def rewrap(console: Console) -> int:
    """Wrap the keys of all jobs with the first of STEPLOG_KEYS, so that the others can be taken away.

    What is sealed stays as it is. It can be broken off and run again. Exit code 1 if a job's key could not be opened.
    """
    from steplog.engine.rewrapping import rewrap as rewrapped

    with store_of(console) as store:
        done: Rewrapped = rewrapped(store, console.note)
    if console.output == "table":
        console.lines([f"{done.rewrapped} rewrapped, {done.current} were so already, {done.closed} cannot be opened"])
    else:
        console.document(done._asdict())
    return 1 if done.closed else 0


@secrets.command(cls=Command)
@job_argument
@click.option("--reason", required=True, metavar="TEXT", help="Why: an event keeps it.")
@click.option("--by", default=user, metavar="NAME", help="Who does it (default: the user's name).")
@console_of
def erase(console: Console, job: str, reason: str, by: str) -> None:
    """Destroy the key to a job's secrets: nobody can read them any more, in this store, in forks and in exports.

    The job must be stopped or have ended, and nothing of it can run afterwards. Its history stays, and can be verified.
    """
    from steplog.engine import operators

    with store_of(console) as store:
        job_id = find(store, job)
        confirm(console, f"erase the secrets of job {job_id} for good?")
        report(console, store, operators.erase(store, job_id, by=by, reason=reason))
