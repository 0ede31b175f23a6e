"""Commands that look after the store and what is derived from its log: the schema, the projections, old jobs."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from steplog.commands.integrity import write_whole
from steplog.commands.sharing import console_of, count_of_jobs, projections_of, store_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console

if TYPE_CHECKING:
    from steplog.eventstore.store import Store

PROJECTIONS = ("statistics", "report")


@click.command(cls=Command)
@console_of
def status(console: Console) -> None:
    """Say whether the store can be reached and is up to date (exit code 6 if not), and how its projections stand."""
    from steplog.eventstore.errors import StoreNotMigrated
    from steplog.terminal.table import facts

    with store_of(console) as store:
        pending = store.migrate(dry_run=True)
        projections = [] if pending else _projections(console, store)
        if console.output == "table":
            schema = f"lacks {', '.join(pending)}" if pending else "up to date"
            shown = [(each["name"], _standing(each)) for each in projections]
            console.lines(facts([("store", store.url), ("schema", schema), *shown], console.look))
        else:
            console.document({"store": store.url, "pending": pending, "projections": projections})
        if pending:
            raise StoreNotMigrated(f"{store.url} lacks {len(pending)} migrations")


def _projections(console: Console, store: Store) -> list[dict[str, Any]]:
    """How each projection stands, as JSON shows it."""
    from steplog.projections.following import next_name
    from steplog.projections.runner import ProjectionRunner

    checkpoints, aside = store.projected.checkpoints(), store.projected.quarantined()
    lags = ProjectionRunner(store, projections_of(console)).lags_s()
    return [
        {
            "name": name,
            "generation": checkpoints[name]["generation"] if name in checkpoints else None,
            "lag_s": lag_s,
            "rebuilding": checkpoints[next_name(name)]["done"] if next_name(name) in checkpoints else None,
            "quarantined": [
                {"job_id": job.job_id, "version": job.version, "error": job.error}
                for job in aside
                if job.projection == name
            ],
        }
        for name, lag_s in lags.items()
    ]


def _standing(projection: dict[str, Any]) -> str:
    from steplog.terminal.text import one_line
    from steplog.terminal.times import duration

    lag_s, aside = projection["lag_s"], projection["quarantined"]
    said = ["not built yet" if lag_s is None else f"{duration(lag_s)} behind" if lag_s else "current"]
    if projection["rebuilding"] is not None:
        said.append(f"being rebuilt: {projection['rebuilding']} jobs so far")
    if aside:
        first = f"{aside[0]['job_id']} at version {aside[0]['version']}: {one_line(aside[0]['error'])}"
        said.append(f"{len(aside)} jobs put aside, the first {first}")
    return "; ".join(said)


@click.command(cls=Command)
@click.argument("projection", type=click.Choice(PROJECTIONS), required=False)
@console_of
def rebuild(console: Console, projection: str | None) -> None:
    """Make a projection, or all, anew from the log, beside the one that is read; then it takes that one's place.

    What was broken off goes on from where it was. Jobs run on meanwhile, and what was put aside is tried again.
    """
    from steplog.projections.runner import rebuild as building
    from steplog.terminal.progress import Progress

    with store_of(console) as store:
        for each in projections_of(console):
            if projection not in (None, each.name):
                continue
            jobs = 0
            with Progress(console, each.name, count_of_jobs(store), "jobs") as progress:
                for built in building(store, each):
                    jobs = built.jobs
                    progress.at(jobs)
            if console.output == "table":
                console.lines([f"{each.name}: rebuilt from {jobs} jobs"])
            else:
                console.document({"name": each.name, "jobs": jobs})


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="End when nothing is left to do.")
@console_of
def project(console: Console, once: bool) -> None:
    """Keep the projections current, until stopped: the statistics, and the table of a page of your own.

    That table is registration_job_steps in the store's schema, or what report_table in steplog.toml or
    STEPLOG_REPORT_TABLE names. `steplog worker --project` and the server do the same beside their work.
    """
    from steplog.projections.runner import ProjectionRunner
    from steplog.terminal.progress import Progress

    with store_of(console) as store:
        runner = ProjectionRunner(store, projections_of(console))
        if once:
            unbuilt = list(runner.lags_s().values()).count(None)
            with Progress(console, "projections", unbuilt * count_of_jobs(store), "jobs and rows") as progress:
                runner.catch_up(progress.at)
            return
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        console.note(f"keeping {', '.join(PROJECTIONS)} of {store.url} current; Ctrl-C ends it")
        runner.run(stop)


@click.command(cls=Command)
@click.option("--workflow", metavar="NAME", help="Only of that one.")
@console_of
def stats(console: Console, workflow: str | None) -> None:
    """Show how often each sub-step ran, how often that failed, and how long it took."""
    from dataclasses import asdict

    from steplog.projections.runner import read_statistics
    from steplog.terminal.table import table
    from steplog.terminal.text import one_line
    from steplog.terminal.times import duration

    with store_of(console) as store:
        found = read_statistics(store, workflow)
        if console.output != "table":
            console.documents(asdict(each) for each in found)
            return
        if not found:
            console.note(f"nothing is counted yet: run `{console.command('db project --once')}`")
            return
        headings = ("workflow", "sub-step", "attempts", "failed", "interrupted", "skipped", "p50", "p95")
        rows = [
            [
                one_line(each.workflow),
                one_line(f"{each.phase}/{each.sub_step}"),
                str(each.attempts),
                f"{each.failed} ({each.failure_rate:.0%})" if each.failed and each.failure_rate else "",
                str(each.interrupted or ""),
                str(each.skipped or ""),
                "" if each.p50_s is None else duration(each.p50_s),
                "" if each.p95_s is None else duration(each.p95_s),
            ]
            for each in found
        ]
        console.lines(table(headings, rows, console.look))


@click.command(cls=Command)
@click.argument("target", metavar="MODULE:WORKFLOW")
@click.argument("file", type=click.File("rb"))
@click.option("--by", metavar="NAME", help="Who does it (default: the user's name).")
@console_of
def adopt(console: Console, target: str, file: IO[bytes], by: str | None) -> None:
    """Make rows of a page's own table of steps jobs of a workflow: what had settled there is not done again.

    A line of FILE is a row as JSON: job_id, sub_step_progress, and input, results {"phase/sub_step": …}, step_number
    where they matter. Rows that are not in flight are left out, and one that was taken is not taken again. `resume
    key:JOB_ID`, or a worker, goes on with them.
    """
    from dataclasses import asdict
    from getpass import getuser

    from steplog.engine.adopting import adopt as taken
    from steplog.engine.adopting import rows_of
    from steplog.engine.lookup import import_workflow

    definition = import_workflow(target)
    with store_of(console, create=True) as store:
        for row in rows_of(file):
            done = taken(store, definition, row, by=by or getuser())
            if console.output == "table":
                console.lines([f"{done.row}  {done.outcome}  {done.job_id or ''}".rstrip()])
            else:
                console.document(asdict(done))


@click.command(cls=Command)
@click.option("--older-than", metavar="AGE", required=True, help="Jobs that ended longer ago: 90d, 12h, or a time.")
@click.option(
    "--export", "out", type=click.Path(path_type=Path, dir_okay=False), help="The new file that keeps their events."
)
@click.option("--dry-run", is_flag=True, help="Only name the jobs.")
@console_of
def prune(console: Console, older_than: str, out: Path | None, dry_run: bool) -> None:
    """Export jobs that ended long ago, read the file back, and only then remove their events from the store.

    Their heads stay: `ls` lists them, their ids and keys are never given out again. On PostgreSQL this takes the role
    steplog_admin. `steplog import` reads the file into any other store.
    """
    from steplog.engine import pruning
    from steplog.terminal.times import instant_of

    if not dry_run and (out is None or out.exists()):
        raise click.UsageError("--export names the new file that their events are kept in")
    with store_of(console) as store:
        try:
            before = instant_of(older_than, store.now())
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'--older-than'") from None
        heads = list(pruning.old_jobs(store, before))
        if dry_run or out is None or not heads:
            console.lines(f"{head.job_id}  {head.version} events" for head in heads)
            console.note(f"{len(heads)} jobs, {sum(head.version for head in heads)} events would be pruned")
            return
        write_whole(out, pruning.export_of(store, heads))
        with out.open("rb") as exported:
            count = pruning.prune(store, exported, lambda job_id, done: _tell_pruned(console, job_id, done))
        console.note(f"{count} of {len(heads)} jobs pruned; their events are in {out}")


def _tell_pruned(console: Console, job_id: str, done: bool) -> None:
    console.lines([f"{job_id}  {'pruned' if done else 'left as it is: it went on'}"])


@click.command("sql", cls=Command)
@click.option("--all", "every", is_flag=True, help="Every migration, also those applied.")
@console_of
def sql(console: Console, every: bool) -> None:
    """Print what `db migrate` would run, for somebody who runs it by hand."""
    from steplog.eventstore.migrations import Dialect, known_migrations, script

    with store_of(console, create=True) as store:
        dialect: Dialect = "sqlite" if store.url.startswith("sqlite") else "postgres"
        pending = store.migrate(dry_run=True)
        chosen = [each for each in known_migrations(dialect) if every or each.title in pending]
        console.lines(script(dialect, chosen).splitlines() if chosen else [])
        if not chosen:
            console.note(f"{store.url} is up to date")


COMMANDS = (status, sql, rebuild, project, prune)
