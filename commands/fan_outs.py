"""Commands that look at fan-outs: their items, a page at a time."""

from __future__ import annotations

import click

from steplog.commands.sharing import at_option, console_of, job_argument, store_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console

STATUSES = ("pending", "in_progress", "retrying", "interrupted", "completed", "failed", "skipped")


@click.command(cls=Command)
@job_argument
@click.argument("sub_step")
@click.option("--status", type=click.Choice(STATUSES), help="Only those that stand so.")
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
    from steplog.projections.fan_out import page_of
    from steplog.terminal.arguments import read_version
    from steplog.terminal.items import item_document, item_lines, items_document

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


COMMANDS = (items,)
