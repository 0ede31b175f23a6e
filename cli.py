"""The command line: what each command takes, and which functions of the packages below it calls.

Only click and the standard library are imported up here, so that `--help` is fast; each command imports what it needs.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steplog.commands import about, database, definitions, fleet, integrity, operating, seeing, serving, time_travel
from steplog.commands.secrets import secrets
from steplog.commands.sharing import at_option, config_of, console_of, job_argument, open_at, store_of, view_of
from steplog.terminal.command import Failure, Root
from steplog.terminal.console import Console

if TYPE_CHECKING:
    from steplog.eventstore.store import Store
    from steplog.terminal.tree import View

JOB_STATUSES = (
    "queued", "running", "waiting", "paused", "parked", "failed", "compensating", "completed", "cancelled",
)  # fmt: skip

version_option = click.IntRange(min=1)


def explain(error: Exception, console: Console) -> Failure:
    """What a person is told about an error: the one table of exit codes and next steps."""
    from steplog.engine import errors as engine
    from steplog.engine.config import ConfigError
    from steplog.eventstore import errors as log

    show = "see `steplog show {0.job_id}`"
    table: tuple[tuple[type[Exception], int, str | None], ...] = (
        (engine.Interrupted, 128, "go on with `steplog resume {0.job_id}`"),
        (engine.InputRefused, 2, "mend it in --input or -P; `steplog run --help` shows how to give it"),
        (engine.ValueRefused, 2, "give a value that fits: it is JSON, with text in double quotes"),
        (log.PayloadRefused, 2, None),
        (log.AmbiguousJob, 2, "write more of the id"),
        (engine.AmbiguousSubStep, 2, "write it as one of them"),
        (engine.AmbiguousWorkflow, 2, "name one of them: `steplog run {0.module}:{0.names[0]}`"),
        (engine.DeclaredTwice, 2, None),
        (ConfigError, 2, "mend that file, or go somewhere else: it is read from the current folder"),
        (log.JobNotFound, 3, "see `steplog ls`"),
        (engine.SubStepNotFound, 3, show),
        (engine.NoFanOut, 4, show),
        (engine.RecordRefused, 4, show),
        (engine.BatchNotFound, 3, "see `steplog batch ls`"),
        (engine.WorkflowNotFound, 3, None),
        (engine.ModuleMissing, 3, None),
        (engine.ModuleFails, 1, "run it again with --debug to see where"),
        (engine.AdoptionRefused, 2, "mend the row or the workflow; rows before it are jobs already"),
        (engine.ImportRefused, 2, "give it a file of `steplog export`"),
        (engine.ImportConflict, 4, show),
        (log.KeyConflict, 4, "use another --key, or the same input; " + show),
        (log.JobOwned, 4, "look on with `steplog events --follow {0.job_id}`, or stop that process first"),
        (log.WrongState, 4, show),
        (engine.PlanNotAdopted, 4, "run it with the code that it was started with, or fork it"),
        (engine.DataMismatch, 4, "run it with the code that it was started with"),
        (
            engine.PlanMismatch,
            4,
            "run it with the code it was started with, or `steplog resume {0.job_id} --adopt-plan`",
        ),
        (engine.SecretsClosed, 4, None),
        (engine.OwnershipLost, 4, show),
        (log.WorkerDead, 4, "see `steplog ls`, and resume what stands still"),
        (log.JobPruned, 3, "look in the file that `steplog db prune` wrote"),
        (log.LogError, 7, "see what is sound before it: `steplog events {0.job_id}`"),
        (log.StoreDamaged, 7, "restore the store from a backup"),
        (engine.IntegrityFailed, 7, "what is sound of a job: `steplog events JOB`"),
        (engine.AnchorRefused, 7, "give it the file of `steplog anchor`, and the key that it was signed with"),
        (engine.ReplayMismatch, 7, "see `steplog events {0.job_id}`"),
        (log.StoreNotMigrated, 6, None),
        (log.StoreError, 6, "see where the store's address comes from: `steplog config`"),
        (log.SteplogError, 1, None),
    )
    for kind, exit_code, advice in table:
        if isinstance(error, kind):
            signal_number = error.signal_number if isinstance(error, engine.Interrupted) else 0
            step = advice.format(error) if advice else getattr(error, "next_step", None)
            return Failure(exit_code + signal_number, str(error), step and console.pasteable(step))
    return Failure(1, f"unexpected {type(error).__name__}: {error}", "run it again with --debug to see where")


@click.group(cls=Root, explain=explain, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="steplog", message="steplog %(version)s")
def main() -> None:
    """Run workflows that survive a crash, and look at what they did.

    A JOB is its id, an end of it that no other job has (4 characters or more), @last, @failed or key:KEY.
    The store is --db, else STEPLOG_DATABASE_URL, else steplog.toml's, else sqlite:///steplog.db here.
    """


# --- running ---------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("steplog-demo"))
def demo(folder: Path) -> int:
    """Run a real job in FOLDER, kill it half-way, resume it, and count what happened."""
    from steplog.examples.registration.demo import run_demo

    return run_demo(folder, out=sys.stdout)


@main.command()
@click.argument("target", metavar="MODULE:WORKFLOW")
@click.option("--input", "given", metavar="JSON|@FILE|-", help="The job's input.")
@click.option("-P", "parameters", multiple=True, metavar="K=V", help="A field of the input: k=text or k:=JSON.")
@click.option("--key", help="Run at most one job of this key; a second one is the first, resumed if need be.")
@click.option("--watch/--no-watch", default=None, help="Show the job while it runs (default: on a terminal).")
@console_of
def run(
    console: Console, target: str, given: str | None, parameters: tuple[str, ...], key: str | None, watch: bool | None
) -> int:
    """Run a job of a workflow to its end.

    MODULE is imported from the current folder too; `:WORKFLOW` may be left out where the module declares only one.
    The exit code is 0 if the job completed and 1 if it did not.
    """
    from steplog.engine.given import refuse_unknown_fields
    from steplog.engine.jobs import run_blocking
    from steplog.engine.lookup import EXAMPLES, import_workflow
    from steplog.terminal.arguments import read_fields, read_input

    definition, input = import_workflow(target), read_input(given, parameters)
    refuse_unknown_fields(definition, read_fields(parameters))
    module = target.partition(":")[0]
    with store_of(console, create=True) as store:
        with ExitStack() as shown:

            def announce(job_id: str) -> None:
                console.note(f"job {job_id}")
                if module not in (*console.modules, *EXAMPLES):
                    console.modules += (module,)  # what is advised from here on finds the workflow again
                shown.enter_context(_watching(console, store, job_id, watch))

            job = run_blocking(definition, input, key=key, store=store, announce=announce)
        return _report(console, store, job.job_id, watch)


@main.command()
@click.argument("job", required=False)
@click.option("--all-stalled", is_flag=True, help="Every job whose worker is gone, one after the other.")
@click.option("--accept", is_flag=True, help="Where sub-steps disagreed about the context: leave it as it is.")
@click.option("--adopt-plan", is_flag=True, help="Go on with the workflow as the code has it now, where that is sound.")
@click.option("--watch/--no-watch", default=None, help="Show the job while it runs (default: on a terminal).")
@operating.by_hand
@console_of
def resume(
    console: Console,
    /,
    job: str | None,
    all_stalled: bool,
    watch: bool | None,
    accept: bool,
    adopt_plan: bool,
    **said: Any,
) -> int:
    """Go on with a job whose process is gone, or that waits for a person.

    Its workflow is looked for in the modules of --module, STEPLOG_MODULES or steplog.toml, then in steplog's examples.
    """
    from steplog.engine.fleet import stalled_jobs

    if (job is None) != all_stalled:
        raise click.UsageError("name a job, or --all-stalled")
    if job is not None:
        return _resume(console, job, watch, accept, adopt_plan, said)
    with store_of(console) as store:
        stalled = [each.head.job_id for each in stalled_jobs(store) if each.next_step == "resume"]
    console.note(f"{len(stalled)} jobs stand still because their worker is gone")
    return max((_resume(console, job_id, watch, accept, adopt_plan, said) for job_id in stalled), default=0)


def _resume(
    console: Console, job: str, watch: bool | None, accept: bool, adopt_plan: bool, said: dict[str, Any]
) -> int:
    from steplog.engine import operators
    from steplog.engine.history import load
    from steplog.engine.jobs import resume_blocking
    from steplog.engine.lookup import find_job, find_workflow
    from steplog.projections.state import STOPPED

    with store_of(console) as store:
        state = load(store, find_job(store, job)).state
        definition = find_workflow(state["workflow"], config_of(console).modules.value)
        job_id = state["job_id"]
        console.note(f"job {job_id}")
        if adopt_plan:
            operating.announce_plan(console, state, definition)
        if state["status"] in STOPPED and (accept or said["reason"] or said["request_id"]):
            operators.resume(store, job_id, accept=accept, **said)
        with _watching(console, store, job_id, watch, beyond=state["version"]):
            resume_blocking(definition, job_id, store, by=said["by"], adopt_plan=adopt_plan)
        return _report(console, store, job_id, watch)


for command in (*operating.COMMANDS, *fleet.COMMANDS, *seeing.COMMANDS):
    main.add_command(command)


# --- looking ---------------------------------------------------------------------------------------------------------


@main.command("ls")
@click.option("--workflow", metavar="NAME")
@click.option("--status", type=click.Choice(JOB_STATUSES))
@click.option("--phase", metavar="NAME", help="The phase that a job is in.")
@click.option("--key")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Repeatable; all must match.")
@click.option("--since", metavar="TIME", help="Created in the last 2h, 30m, 1d …, or since a time.")
@click.option("--failed-sub-step", metavar="NAME")
@click.option("--limit", type=version_option, default=50, show_default=True)
@click.option("--cursor", metavar="JOB", help="Only jobs older than this one: the next page.")
@console_of
def list_jobs(console: Console, /, limit: int, cursor: str | None, **filters: Any) -> None:
    """List jobs, newest first."""
    from steplog.engine.lookup import find_job, unique_suffixes
    from steplog.engine.ownership import stalled_among
    from steplog.projections.documents import head_document
    from steplog.terminal.arguments import read_query
    from steplog.terminal.listing import jobs_table

    with store_of(console) as store:
        now = store.now()
        found = store.heads(read_query(filters, find_job(store, cursor) if cursor else None, limit, now))
        heads, more = found[:limit], len(found) > limit
        if console.output == "json":
            items = [head_document(head) for head in heads]
            console.document({"items": items, "next_cursor": heads[-1].job_id if more else None})
        elif console.output == "jsonl":
            console.documents(head_document(head) for head in heads)
        elif heads:
            names = unique_suffixes(store, [head.job_id for head in heads])
            console.lines(jobs_table(heads, names, stalled_among(store, heads), now, console.look))
            if more:
                console.note(f"older ones: add --cursor {names[heads[-1].job_id]}")
        else:
            console.note(f"no such jobs in {store.url}")


@main.command()
@job_argument
@at_option
@click.option("--context", is_flag=True, help="Only the job's context.")
@click.option("--raw", is_flag=True, help="The whole folded state, as JSON.")
@console_of
def show(console: Console, job: str, at: str | None, context: bool, raw: bool) -> None:
    """Show a job as a tree of phases and sub-steps, now or as it was."""
    from steplog.engine.history import load
    from steplog.engine.lookup import find_job
    from steplog.eventstore.sealed import hidden
    from steplog.projections.snapshot import snapshot
    from steplog.terminal.arguments import read_version
    from steplog.terminal.next_steps import context_lines
    from steplog.terminal.tree import failure_trace, tree

    with store_of(console) as store:
        job_id = find_job(store, job)
        until = read_version(store, job_id, at) if at else None
        state = hidden(load(store, job_id, until).state)
        if raw or console.output != "table":
            console.document(state if raw else state["context"] if context else snapshot(state))
        elif context:
            console.lines(context_lines(state["context"], console.look))
        else:
            view = view_of(console, store, state, past=until is not None)
            console.lines([*tree(view), *failure_trace(state, console.look)])
            if until is None:
                _advise(console, view)


@main.command()
@job_argument
@click.option("--follow", is_flag=True, help="Go on with what comes, until the job has ended.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="VERSION", help="Only what came after it.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only events of this type; repeatable.")
@click.option("--reverse", is_flag=True, help="The latest first.")
@click.option("--limit", type=version_option, help="At most so many.")
@console_of
def events(
    console: Console, job: str, follow: bool, after: int, types: tuple[str, ...], reverse: bool, limit: int | None
) -> None:
    """List what happened to a job: every event of its log."""
    from steplog.engine.lookup import find_job
    from steplog.projections.documents import event_document
    from steplog.terminal.history import HistoryLines, known_types
    from steplog.terminal.reading import as_it_grows, backwards, chosen, first_event

    if follow and (reverse or console.output == "json"):
        raise click.UsageError("--follow goes forwards, in lines: leave out --reverse, and use -o jsonl for JSON")
    with store_of(console) as store:
        job_id = find_job(store, job)
        if follow:
            read = as_it_grows(store, job_id, after, console.flush)
        else:
            read = backwards(store, job_id, after) if reverse else store.read(job_id, after)
        shown = chosen(read, known_types(types), limit)
        if console.output == "table":
            lines = HistoryLines(first_event(store, job_id), store.head(job_id).version, console.look)
            console.lines(map(lines.line, shown))
        else:
            console.documents(map(event_document, shown))


@main.command()
@job_argument
@click.option("--until", type=version_option, metavar="VERSION", help="Stop there.")
@click.option("--step-through", is_flag=True, help="Show the job after each event: Enter goes on, q stops.")
@console_of
def replay(console: Console, job: str, until: int | None, step_through: bool) -> None:
    """Fold a job's history again, event by event, and compare the outcome with what the store shows of the job."""
    from steplog.engine.lookup import find_job
    from steplog.engine.replay import refuse_mismatch
    from steplog.engine.replay import replay as folding
    from steplog.terminal.replay import Replay, key_by_key

    with store_of(console) as store:
        head = store.head(find_job(store, job))
        steps = folding(store, head.job_id, min(until or head.version, head.version))
        if step_through and sys.stdin.isatty() and not console.yes:
            steps = key_by_key(steps, partial(view_of, console, store, past=True))
        shown = Replay(console, head)
        event, state = shown.show(steps)
        whole = event.version == head.version
        if whole:
            refuse_mismatch(head, event, state)
        shown.conclude(view_of(console, store, state, past=True), compared=whole)


for command in (*time_travel.COMMANDS, *definitions.COMMANDS):
    main.add_command(command)


@main.command("resume-point")
@job_argument
@at_option
@console_of
def show_resume_point(console: Console, job: str, at: str | None) -> None:
    """Show what of a job would run next, and why, and with which context, now or as it was."""
    from steplog.engine.history import load
    from steplog.engine.lookup import find_job
    from steplog.projections.resume_point import resume_point
    from steplog.terminal.arguments import read_version
    from steplog.terminal.next_steps import resume_point_lines

    with store_of(console) as store:
        job_id = find_job(store, job)
        until = read_version(store, job_id, at) if at else None
        state = load(store, job_id, until).state
        point = resume_point(state)
        if console.output != "table":
            console.document(point)
            return
        view = view_of(console, store, state, past=until is not None)
        console.lines(resume_point_lines(point, view))
        if until is None:
            _advise(console, view)


for command in (*integrity.COMMANDS, database.stats, database.adopt, *serving.COMMANDS, *about.COMMANDS):
    main.add_command(command)


# --- the store, the settings -----------------------------------------------------------------------------------------


@main.group()
def db() -> None:
    """Look after the store."""


@db.command()
@click.option("--dry-run", is_flag=True, help="Only name the migrations.")
@console_of
def migrate(console: Console, dry_run: bool) -> None:
    """Bring the store's schema up to date."""
    with store_of(console, create=True) as store:
        names = store.migrate(dry_run=dry_run)
        if console.output == "table":
            console.lines(names)
            did = f"would be applied to {store.url}" if dry_run else f"applied to {store.url}"
            console.note(f"{len(names)} migrations {did}" if names else f"{store.url} is up to date")
        else:
            console.document({"store": store.url, "pending" if dry_run else "applied": names})


for command in (*database.COMMANDS, integrity.backup):
    db.add_command(command)

main.add_command(secrets)


# --- what commands share ---------------------------------------------------------------------------------------------


def _advise(console: Console, view: View) -> None:
    """How a job that stands still goes on."""
    from steplog.projections.state import STOPPED

    if view.state["erased"]:
        return
    if view.state["undoing"] and view.state["status"] == "failed":
        console.note(f"what it had done is undone; `{console.command(f'fork {view.name}')}` does it anew")
    elif view.stalled or view.state["status"] in (*STOPPED, "queued", "waiting"):
        console.note(f"go on with `{console.command(f'resume {view.name}')}`")


def _watching(
    console: Console, store: Store, job_id: str, watch: bool | None, *, beyond: int = 0
) -> AbstractContextManager[None]:
    """Show the job on stderr while it runs."""
    from steplog.engine.lookup import unique_suffixes
    from steplog.terminal.live import watching

    name = unique_suffixes(store, [job_id])[job_id]
    return watching(console, partial(open_at, console), job_id, name, watch=watch, beyond=beyond)


def _report(console: Console, store: Store, job_id: str, watch: bool | None) -> int:
    """Show where a job that was run has come to; the exit code that says so."""
    from steplog.engine.history import load
    from steplog.projections.snapshot import snapshot
    from steplog.terminal.live import watches
    from steplog.terminal.tree import summary, tree

    state = load(store, job_id).state
    console.exit_code = 0 if state["status"] == "completed" else 1
    if console.output != "table":
        console.document(snapshot(state))
        return console.exit_code
    view = view_of(console, store, state)
    console.lines(tree(view) if watches(console, watch) else summary(view))
    _advise(console, view)
    return console.exit_code
