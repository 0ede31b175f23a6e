"""Commands that look at the fleet and at jobs as they go: workers, schedules, watch; the items of a fan-out."""

from __future__ import annotations

from typing import Any

import click

from steplog.commands.sharing import at_option, console_of, job_argument, open_at, store_of, view_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console

ITEM_STATUSES = ("pending", "in_progress", "retrying", "interrupted", "completed", "failed", "skipped")


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


@click.command(cls=Command)
@job_argument
@click.argument("sub_step")
@click.option("--status", type=click.Choice(ITEM_STATUSES), help="Only those that stand so.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--after", metavar="ITEM", help="Only those behind it: the next page.")
@at_option
@console_of
def items(
    console: Console, job: str, sub_step: str, status: str | None, limit: int, after: str | None, at: str | None
) -> None:
    """List the items of a fan-out, in their order: how each stands, and what it came to."""
    from steplog.engine.history import load
    from steplog.engine.lookup import find_items, find_job
    from steplog.projections.documents import item_document, items_document
    from steplog.projections.fan_out import page_of
    from steplog.terminal.arguments import read_version
    from steplog.terminal.items import item_lines

    with store_of(console) as store:
        job_id = find_job(store, job)
        state = load(store, job_id, read_version(store, job_id, at) if at else None).state
        group, place = find_items(state, sub_step, after)
        found, more = page_of(group, status, place, limit)
        if console.output == "jsonl":
            console.documents(map(item_document, found))
        elif console.output == "json":
            console.document(items_document(found, found[-1].key if more else None))
        elif found:
            console.lines(item_lines(found, console.look))
            if more:
                console.note(f"more of them: add --after {found[-1].key}")
        else:
            console.note("no such items")


COMMANDS = (workers, schedules, watch, items)
