"""Commands that look at the fleet and at jobs as they go: workers, schedules, watch."""

from __future__ import annotations

from typing import Any

import click

from steplog.commands.sharing import console_of, job_argument, open_at, store_of, view_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console


@click.command(cls=Command)
@click.option("--all", "ended", is_flag=True, help="Those that have ended, too.")
@console_of
def workers(console: Console, ended: bool) -> None:
    """List workers that live, what they own, and jobs that stand still."""
    from steplog.engine.fleet import fleet_document
    from steplog.terminal.fleet import fleet_lines

    with store_of(console) as store:
        fleet = fleet_document(store, ended=ended)
        if console.output == "table":
            console.lines(fleet_lines(fleet, console.command, console.look))
        else:
            console.document(fleet)


@click.command(cls=Command)
@console_of
def schedules(console: Console) -> None:
    """List the schedules that workers have declared, when each fired last and when it will next."""
    from steplog.engine.schedules import schedule_document
    from steplog.terminal.fleet import schedules_table

    with store_of(console) as store:
        known = [schedule_document(each, store.now()) for each in store.schedules()]
        if console.output == "json":
            console.document(known)
        elif console.output == "jsonl":
            console.documents(known)
        elif known:
            console.lines(schedules_table(known, store.now(), console.look))
        else:
            console.note(f"no worker has declared a schedule in {store.url}")


@click.command(cls=Command)
@job_argument
@click.option("--timeout", metavar="DURATION", help="Give up after 30s, 5m …: exit code 5, and the job goes on.")
@console_of
def watch(console: Console, job: str, timeout: str | None) -> int:
    """Show a job until it ends or waits for a person. Exit code 0 if it completed, 1 if not, 5 after --timeout."""
    from functools import partial

    from steplog.engine.history import load
    from steplog.engine.lookup import find_job, unique_suffixes
    from steplog.engine.policies import seconds_of
    from steplog.projections.snapshot import snapshot
    from steplog.terminal.live import until_it_stops, watching
    from steplog.terminal.tree import summary

    try:
        timeout_s = seconds_of(timeout) if timeout else None
    except Exception as error:
        raise click.BadParameter(str(error), param_hint="'--timeout'") from None
    with store_of(console) as store:
        job_id = find_job(store, job)
        name = unique_suffixes(store, [job_id])[job_id]
        with watching(console, partial(open_at, console), job_id, name, watch=True):
            stopped = until_it_stops(store, job_id, timeout_s)
        state = load(store, job_id).state
        if console.output != "table":
            console.document(snapshot(state))
        else:
            console.lines(summary(view_of(console, store, state)))
        if not stopped:
            return 5
        return 0 if state["status"] == "completed" else 1


def note_fleet(console: Console, store: Any) -> None:
    """What `doctor` says of the fleet."""
    from steplog.engine.fleet import fleet_document
    from steplog.terminal.fleet import fleet_notes

    for line in fleet_notes(fleet_document(store), console.command):
        console.note(line)


COMMANDS = (workers, schedules, watch)
