"""Commands that look at a job over time: its timeline, two moments of it, and beside another job."""

from __future__ import annotations

import click

from steplog.commands.sharing import at_option, console_of, job_argument, store_of, view_of
from steplog.terminal.command import Command, PictureCommand
from steplog.terminal.console import Console

COLUMNS = 100
"""How wide the bars are drawn where stdout is no terminal."""


@click.command(cls=PictureCommand)
@job_argument
@at_option
@console_of
def timeline(console: Console, job: str, at: str | None) -> None:
    """Show a job's attempts, waits and crashes as bars over time, now or as it was.

    With `-o FILE.svg` as a picture.
    """
    from steplog.engine.lookup import find_job, unique_suffixes
    from steplog.engine.ownership import stalled_among
    from steplog.projections.timeline import timeline as timeline_of
    from steplog.projections.timeline_svg import timeline_svg
    from steplog.terminal.arguments import read_version
    from steplog.terminal.timeline import timeline_lines

    with store_of(console) as store:
        job_id = find_job(store, job)
        if at:
            shown = timeline_of(store.read(job_id, 0, read_version(store, job_id, at)))
        else:
            head = store.head(job_id)
            stalled = bool(stalled_among(store, [head]))
            shown = timeline_of(store.read(job_id, 0, head.version), store.now(), stalled=stalled)
        if console.picture:
            console.draw(timeline_svg(shown))
        elif console.output != "table":
            console.document(shown)
        else:
            name = unique_suffixes(store, [job_id])[job_id]
            console.lines(timeline_lines(shown, name, console.look, console.columns or COLUMNS))


@click.command(cls=Command)
@job_argument
@click.argument("start", metavar="FROM")
@click.argument("end", metavar="[TO]", required=False)
@console_of
def diff(console: Console, job: str, start: str, end: str | None) -> None:
    """Show what changed in a job between two versions or times; TO is now unless it is given.

    With -o json as a JSON patch (RFC 6902) that makes the snapshot at FROM the one at TO.
    """
    from steplog.engine.history import load
    from steplog.engine.lookup import find_job
    from steplog.projections.diff import changes, patch
    from steplog.projections.snapshot import snapshot
    from steplog.terminal.arguments import read_version
    from steplog.terminal.diff import diff_lines

    with store_of(console) as store:
        job_id = find_job(store, job)
        before = load(store, job_id, read_version(store, job_id, start, "FROM")).state
        after = load(store, job_id, read_version(store, job_id, end, "TO") if end else None).state
        found = list(changes(snapshot(before), snapshot(after)))
        if console.output == "table":
            console.lines(diff_lines(found, before, view_of(console, store, after, past=True)))
        else:
            console.documents(patch(found))


@click.command(cls=Command)
@click.argument("job_a")
@click.argument("job_b")
@console_of
def compare(console: Console, job_a: str, job_b: str) -> None:
    """Show what two jobs of one workflow were given, and where they first did something else.

    Each sub-step's history is compared with the other job's: the order of siblings, ids, times and workers count not.
    """
    from steplog.engine.lookup import find_job, unique_suffixes
    from steplog.projections.compare import compare as compared
    from steplog.terminal.diff import comparison_lines

    with store_of(console) as store:
        a, b = (store.head(find_job(store, job)) for job in (job_a, job_b))
        if a.columns.workflow != b.columns.workflow:
            said = f"one is a job of {a.columns.workflow}, the other of {b.columns.workflow}"
            raise click.UsageError(f"{said}: there is nothing to compare")
        comparison = compared(store.read(a.job_id, 0, a.version), store.read(b.job_id, 0, b.version))
        if console.output == "table":
            names = unique_suffixes(store, [a.job_id, b.job_id])
            console.lines(comparison_lines(comparison, names[a.job_id], names[b.job_id], console.look))
        else:
            console.document({"a": a.job_id, "b": b.job_id, **comparison})


COMMANDS = (timeline, diff, compare)
