"""Commands that do something to a job by hand: each an event with who and why, and a line on what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from steplog.commands.sharing import config_of, console_of, job_argument, store_of, view_of
from steplog.terminal.command import Command
from steplog.terminal.console import Console

if TYPE_CHECKING:
    from steplog.engine.definition import AnyDefinition
    from steplog.engine.operators import Appended
    from steplog.eventstore.store import Store
    from steplog.projections.state import State

sub_step_argument = click.argument("sub_step")
same_key_option = click.option("--same-key", is_flag=True, help="Keep the idempotency key.")
unset_option = click.option("--unset", multiple=True, metavar="FIELD", help="Take a field away; repeatable.")
parameters_option = click.option(
    "-P", "parameters", multiple=True, metavar="K=V", help="A field of the input: k=text or k:=JSON; others stay."
)


def user() -> str:
    from getpass import getuser

    return getuser()


def by_hand(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that a person does to a job: handed over as `by`, `reason` and `request_id`."""
    for option in (
        click.option("--request-id", metavar="ID", help="The same request again does nothing."),
        click.option("--by", default=user, metavar="NAME", help="Who does it (default: the user's name)."),
        click.option("--reason", metavar="TEXT", help="Why."),
    ):
        command = option(command)
    return command


# --- the job ---------------------------------------------------------------------------------------------------------


@click.command(cls=Command)
@job_argument
@by_hand
@console_of
def pause(console: Console, /, job: str, **said: Any) -> None:
    """Stop a job once nothing of it is in progress."""
    from steplog.engine import operators

    with store_of(console) as store:
        report(console, store, operators.pause(store, find(store, job), **said))


@click.command(cls=Command)
@job_argument
@by_hand
@console_of
def cancel(console: Console, /, job: str, **said: Any) -> None:
    """End a job before its end."""
    from steplog.engine import operators

    with store_of(console) as store:
        job_id = find(store, job)
        confirm(console, f"cancel job {job_id}?")
        report(console, store, operators.cancel(store, job_id, **said))


@click.command(cls=Command)
@job_argument
@click.option("--sub-step", metavar="SUB_STEP", help="Only this one; else whatever stopped the job, or backs off.")
@same_key_option
@by_hand
@console_of
def retry(console: Console, /, job: str, sub_step: str | None, same_key: bool, **said: Any) -> None:
    """Let what failed run again, or what backs off run now.

    After an edit of the input or the context it begins a new generation, with a new idempotency key.
    """
    from steplog.engine import operators

    with store_of(console) as store:
        report(console, store, operators.retry(store, find(store, job), sub_step, same_key=same_key, **said))


@click.command("set", cls=Command)
@job_argument
@click.argument("fields", nargs=-1, metavar="K=V|K:=JSON...")
@unset_option
@by_hand
@console_of
def set_context(console: Console, /, job: str, fields: tuple[str, ...], unset: tuple[str, ...], **said: Any) -> None:
    """Change fields of a job's context."""
    from steplog.engine import operators
    from steplog.terminal.arguments import read_fields

    if not fields and not unset:
        raise click.UsageError("name a field: k=text or k:=JSON, or --unset k")
    values = read_fields(fields, "K=V")
    with store_of(console) as store:
        job_id = find(store, job)
        code = _code(console, store, job_id)
        report(console, store, operators.set_context(store, job_id, values, unset=unset, definition=code, **said))


@click.command("edit-input", cls=Command)
@job_argument
@click.argument("given", metavar="[JSON|@FILE|-]", required=False)
@parameters_option
@by_hand
@console_of
def edit_input(console: Console, /, job: str, given: str | None, parameters: tuple[str, ...], **said: Any) -> None:
    """Give a job that is stopped another input, or other fields of the one it has."""
    from steplog.engine import operators
    from steplog.engine.given import refuse_unknown_fields
    from steplog.engine.history import load
    from steplog.terminal.arguments import read_fields

    if given is None and not parameters:
        raise click.UsageError("give the input as JSON, @FILE or -, or fields of it with -P")
    with store_of(console) as store:
        job_id = find(store, job)
        input = _edited(load(store, job_id).state["input"], given, parameters)
        code = _code(console, store, job_id)
        if code is not None:
            refuse_unknown_fields(code, read_fields(parameters))
        report(console, store, operators.edit_input(store, job_id, input, definition=code, **said))


@click.command(cls=Command)
@job_argument
@click.argument("name")
@click.argument("payload", metavar="[JSON|@FILE|-]", required=False)
@by_hand
@console_of
def signal(console: Console, /, job: str, name: str, payload: str | None, **said: Any) -> None:
    """Send a job a signal; with the same --request-id it is the same signal, kept once."""
    from steplog.engine import operators
    from steplog.terminal.arguments import read_document

    value = None if payload is None else read_document(payload, "PAYLOAD")
    with store_of(console) as store:
        report(console, store, operators.signal(store, find(store, job), name, value, **said))


@click.command(cls=Command)
@job_argument
@click.option("--at", metavar="VERSION|TIME", help="From that version, or from what it was at a time.")
@click.option("--set", "fields", multiple=True, metavar="K=V|K:=JSON", help="A field of the context; repeatable.")
@unset_option
@click.option("--input", "given", metavar="JSON|@FILE|-", help="Another input.")
@parameters_option
@by_hand
@console_of
def fork(
    console: Console,
    /,
    job: str,
    at: str | None,
    fields: tuple[str, ...],
    unset: tuple[str, ...],
    given: str | None,
    parameters: tuple[str, ...],
    **said: Any,
) -> None:
    """Begin a new job from what another one was, with its context or input edited."""
    from steplog.engine import fork as forking
    from steplog.engine.history import load
    from steplog.terminal.arguments import read_fields, read_version

    values = read_fields(fields, "--set")
    with store_of(console) as store:
        job_id = find(store, job)
        version = read_version(store, job_id, at) if at else None
        edited: dict[str, Any] = {}
        if given is not None or parameters:
            edited["input"] = _edited(load(store, job_id, version).state["input"], given, parameters)
        code = _code(console, store, job_id)
        made = forking.fork(store, job_id, at=version, values=values, unset=unset, definition=code, **edited, **said)
        report(console, store, made)


# --- a sub-step ------------------------------------------------------------------------------------------------------


@click.command(cls=Command)
@job_argument
@sub_step_argument
@by_hand
@console_of
def skip(console: Console, /, job: str, sub_step: str, **said: Any) -> None:
    """Do without a sub-step; its needs must have settled."""
    from steplog.engine import operators

    with store_of(console) as store:
        report(console, store, operators.skip(store, find(store, job), sub_step, **said))


@click.command(cls=Command)
@job_argument
@sub_step_argument
@click.option("--result", metavar="JSON|@FILE|-", help="What it returns to those that need it (default: null).")
@by_hand
@console_of
def complete(console: Console, /, job: str, sub_step: str, result: str | None, **said: Any) -> None:
    """Take a sub-step for done; its needs must have settled."""
    from steplog.engine import operators
    from steplog.terminal.arguments import read_document

    value = None if result is None else read_document(result, "--result")
    with store_of(console) as store:
        job_id = find(store, job)
        code = _code(console, store, job_id)
        report(console, store, operators.complete(store, job_id, sub_step, value, definition=code, **said))


@click.command(cls=Command)
@job_argument
@sub_step_argument
@by_hand
@console_of
def fail(console: Console, /, job: str, sub_step: str, **said: Any) -> None:
    """Take a sub-step for failed; its needs must have settled."""
    from steplog.engine import operators

    with store_of(console) as store:
        report(console, store, operators.fail(store, find(store, job), sub_step, **said))


@click.command(cls=Command)
@job_argument
@sub_step_argument
@click.option("--dry-run", is_flag=True, help="Only name what would be reset.")
@same_key_option
@by_hand
@console_of
def reset(console: Console, /, job: str, sub_step: str, dry_run: bool, same_key: bool, **said: Any) -> None:
    """Put a sub-step back to pending, with everything that went on from it."""
    from steplog.engine import operators
    from steplog.terminal.by_hand import reset_document, reset_lines

    with store_of(console) as store:
        job_id = find(store, job)
        foreseen = operators.reset(store, job_id, sub_step, same_key=same_key, dry_run=True, **said)
        document = reset_document(job_id, foreseen.events)
        if dry_run and console.output != "table":
            console.document(document)
        elif dry_run:
            console.lines(reset_lines(document))
        else:
            confirm(console, "\n".join([*reset_lines(document), "do that?"]))
            report(console, store, operators.reset(store, job_id, sub_step, same_key=same_key, **said))


COMMANDS = (pause, cancel, retry, skip, complete, fail, reset, signal, set_context, edit_input, fork)

# --- what these commands share ---------------------------------------------------------------------------------------


def find(store: Store, job: str) -> str:
    from steplog.engine.lookup import find_job

    return find_job(store, job)


def _code(console: Console, store: Store, job_id: str) -> AnyDefinition | None:
    """The job's workflow, where a module that was named declares it: values are then checked by its types."""
    from steplog.engine.errors import WorkflowNotFound
    from steplog.engine.lookup import find_workflow

    try:
        return find_workflow(store.head(job_id).columns.workflow, config_of(console).modules.value)
    except WorkflowNotFound:
        return None


def _edited(present: Any, given: str | None, parameters: tuple[str, ...]) -> Any:
    """The input that was given, or the present one, with the parameters on top."""
    from steplog.terminal.arguments import read_fields, read_input

    if given is not None:
        return read_input(given, parameters)
    if not isinstance(present, dict):
        raise click.UsageError("-P changes fields of an input that is an object, and this job's is none")
    return {**present, **read_fields(parameters)}


def announce_plan(console: Console, state: State, definition: AnyDefinition) -> None:
    """Say what a job's plan would change to, and ask; what is unsound is left to whoever adopts it."""
    from steplog.engine.adoption import adoption
    from steplog.engine.plan import plan_of

    found = adoption(state, plan_of(definition))
    if found.differences and not found.obstacles:
        for difference in found.differences:
            console.note(f"changed: {difference}")
        confirm(console, "go on with that plan?")


def confirm(console: Console, question: str) -> None:
    """Ask whoever sits at a terminal; a no ends the command with exit code 1."""
    if _is_a_terminal() and not console.yes:
        click.confirm(question, abort=True, err=True)


def report(console: Console, store: Store, done: Appended) -> None:
    """What was appended, and what happens next."""
    from steplog.terminal.by_hand import action_document, action_line

    view = view_of(console, store, done.state)
    if console.output == "table":
        console.lines([action_line(view, done.events, done.repeated, console.command)])
    else:
        console.document(action_document(view, done.events, done.repeated, console.command))


def _is_a_terminal() -> bool:
    return sys.stdin.isatty()
