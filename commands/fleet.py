"""Commands of a fleet: submit jobs one by one or as batches, run the worker that claims them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from steplog.commands.operating import by_hand
from steplog.commands.sharing import config_of, console_of, store_of
from steplog.terminal.command import Command, Group
from steplog.terminal.console import Console

if TYPE_CHECKING:
    from steplog.eventstore.store import BatchCount, Store

target_argument = click.argument("target", metavar="MODULE:WORKFLOW")
priority_option = click.option("--priority", type=int, default=0, help="A higher one is claimed first.")
run_at_option = click.option("--run-at", metavar="TIME", help="Not before that time (ISO 8601, or in 2h).")
tags_option = click.option("--tag", "tags", multiple=True, metavar="K=V", help="For lists to filter on; repeatable.")


@click.command(cls=Command)
@target_argument
@click.option("--input", "given", metavar="JSON|@FILE|-", help="The job's input.")
@click.option("-P", "parameters", multiple=True, metavar="K=V", help="A field of the input: k=text or k:=JSON.")
@click.option("--key", help="Submit at most one job of this key; the same input again is that job.")
@priority_option
@run_at_option
@tags_option
@console_of
def submit(
    console: Console,
    target: str,
    given: str | None,
    parameters: tuple[str, ...],
    key: str | None,
    priority: int,
    run_at: str | None,
    tags: tuple[str, ...],
) -> None:
    """Store a job for a worker to run, and print its id."""
    from steplog.engine.given import refuse_unknown_fields
    from steplog.engine.lookup import import_workflow
    from steplog.engine.submitting import submit as store_job
    from steplog.terminal.arguments import read_fields, read_input, read_moment, read_tags

    definition, input = import_workflow(target), read_input(given, parameters)
    refuse_unknown_fields(definition, read_fields(parameters))
    with store_of(console, create=True) as store:
        at = read_moment(run_at, store.now(), "--run-at") if run_at else None
        how: dict[str, Any] = {"key": key, "priority": priority, "run_at": at, "tags": read_tags(tags)}
        job_id = store_job(definition, input, store=store, **how)
        if console.output == "table":
            console.lines([job_id])
        else:
            console.document({"job_id": job_id})


@click.command(cls=Command)
@click.argument("modules", nargs=-1, metavar="MODULE...")
@click.option("--concurrency", type=click.IntRange(min=1), default=10, show_default=True, help="Jobs at once.")
@click.option("--one-shot", is_flag=True, help="End when no job is due.")
@click.option("--project", is_flag=True, help="Keep the projections current beside the jobs.")
@console_of
def worker(console: Console, modules: tuple[str, ...], concurrency: int, one_shot: bool, project: bool) -> None:
    """Claim and run jobs of the workflows that MODULEs declare, until SIGTERM or Ctrl-C.

    MODULE:WORKFLOW takes one workflow of a module. Without any, the modules of --module, STEPLOG_MODULES or
    steplog.toml. The first signal lets what runs settle and hands the jobs back, a second one does so at once. Start as
    many workers as you like, on any machine that reaches the store: each job has one owner, and another worker takes
    over when that one dies. Webhooks of [[notify]] in steplog.toml are told beside the jobs.
    """
    import os

    from steplog.engine.lookup import workflows_of
    from steplog.engine.notices import Notifier, configured_targets
    from steplog.engine.serving import run_worker
    from steplog.projections.runner import ProjectionRunner, own_projections

    config = config_of(console)
    targets = configured_targets(config.notify.value, os.environ)
    named = modules or config.modules.value
    if not named:
        raise click.UsageError("name a module that declares a workflow")
    workflows = workflows_of(named)
    with store_of(console, create=True) as store:
        names = ", ".join(workflow.name for workflow in workflows)
        console.note(f"worker of {names}: {concurrency} at once, in {store.url}")
        beside: list[Any] = [Notifier(store, targets).run] if targets else []
        if project:
            beside.append(ProjectionRunner(store, own_projections(config.report_table.value)).run)
        stopped_by = run_worker(*workflows, store=store, concurrency=concurrency, one_shot=one_shot, beside=beside)
        if stopped_by is not None:
            console.note(f"stopped by signal {stopped_by}; its jobs were handed back")


# --- batches ---------------------------------------------------------------------------------------------------------


@click.group(cls=Group)
def batch() -> None:
    """Submit many jobs together, and look after them as one."""


@batch.command("submit")
@target_argument
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--name", metavar="BATCH", help="Its name: submitted again after a failure, what is there is kept.")
@priority_option
@run_at_option
@tags_option
@console_of
def submit_batch(
    console: Console, target: str, file: Any, name: str | None, priority: int, run_at: str | None, tags: tuple[str, ...]
) -> None:
    """Submit a job for each line of FILE (`-` is stdin): each a JSON document, its input. Prints the batch's id."""
    from steplog.engine.lookup import import_workflow
    from steplog.engine.submitting import Submission, submit_many
    from steplog.terminal.arguments import read_moment, read_tags

    definition, tagged = import_workflow(target), read_tags(tags)
    with store_of(console, create=True) as store:
        at = read_moment(run_at, store.now(), "--run-at") if run_at else None
        inputs = (Submission(input, None, priority, at, tagged) for input in _documents(file))
        submitted = submit_many(definition, inputs, batch=name, store=store)
        if console.output == "table":
            console.lines([submitted.batch_id])
            console.note(f"{len(submitted.job_ids)} jobs; see `{console.command(f'batch show {submitted.batch_id}')}`")
        else:
            console.document({"batch_id": submitted.batch_id, "job_ids": submitted.job_ids})


@batch.command("ls")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@console_of
def list_batches(console: Console, limit: int) -> None:
    """List batches, and how far each is."""
    with store_of(console) as store:
        _show(console, store, store.batches(limit=limit))


@batch.command("show")
@click.argument("batch_id", metavar="BATCH")
@click.option("--watch", is_flag=True, help="Show it until every job has ended or waits for a person.")
@console_of
def show_batch(console: Console, batch_id: str, watch: bool) -> int:
    """Show how far a batch is. With --watch the exit code is 0 if every job completed, else 1."""
    import time

    from steplog.engine.batches import count_batch
    from steplog.terminal.fleet import batch_line, goes_on

    with store_of(console) as store:
        counted = count_batch(store, batch_id)
        while watch and goes_on(counted):
            console.note(batch_line(counted))
            time.sleep(1.0)
            counted = count_batch(store, batch_id)
        _show(console, store, [counted])
        return 0 if not watch or counted.statuses.keys() == {"completed"} else 1


@batch.command("pause")
@click.argument("batch_id", metavar="BATCH")
@by_hand
@console_of
def pause_batch(console: Console, /, batch_id: str, by: str, reason: str | None, **ignored: Any) -> None:
    """Pause every job of a batch that has not ended."""
    from steplog.engine import batches

    with store_of(console) as store:
        _report(console, batches.pause_batch(store, batch_id, by=by, reason=reason), "paused")


@batch.command("cancel")
@click.argument("batch_id", metavar="BATCH")
@by_hand
@console_of
def cancel_batch(console: Console, /, batch_id: str, by: str, reason: str | None, **ignored: Any) -> None:
    """Cancel every job of a batch that has not ended."""
    from steplog.engine import batches

    with store_of(console) as store:
        _report(console, batches.cancel_batch(store, batch_id, by=by, reason=reason), "cancelled")


COMMANDS = (submit, worker, batch)

# --- what these commands share ---------------------------------------------------------------------------------------


def _documents(file: Any) -> Iterator[Any]:
    import json

    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise click.BadParameter(f"line {number}: {error}", param_hint="'FILE'") from None


def _show(console: Console, store: Store, counted: list[BatchCount]) -> None:
    from steplog.terminal.fleet import batch_document, batches_table

    if console.output == "json":
        console.document([batch_document(each) for each in counted])
    elif console.output == "jsonl":
        console.documents(map(batch_document, counted))
    elif counted:
        console.lines(batches_table(counted, store.now(), console.look))
    else:
        console.note(f"no batches in {store.url}")


def _report(console: Console, did: Any, what: str) -> None:
    if console.output == "table":
        console.lines([f"{did.done} jobs {what} or asked to be, {did.left} left as they were"])
    else:
        console.document({"batch_id": did.batch_id, "done": did.done, "left": did.left})
