"""What commands share: the settings, the store that they name, and a job as it is shown."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING

import click

from steplog.terminal.console import Console

if TYPE_CHECKING:
    from steplog.engine.config import Config
    from steplog.eventstore.store import Store
    from steplog.projections.projecting import Projection
    from steplog.projections.state import State
    from steplog.terminal.tree import View

console_of = click.make_pass_decorator(Console, ensure=True)
job_argument = click.argument("job")
at_option = click.option(
    "--at", metavar="VERSION|TIME", help="As of an event's number, or of a time (2h ago, ISO 8601)."
)


def config_of(console: Console) -> Config:
    """The settings, and where each comes from."""
    from steplog.engine.config import read_config

    return read_config(db=console.db, modules=console.modules)


def open_at(console: Console, *, create: bool = False) -> Store:
    """The store that the settings name; a file that is missing is made only where something will be written."""
    from steplog.eventstore.connect import open_store

    return open_store(str(config_of(console).database_url.value), create=create)


def store_of(console: Console, *, create: bool = False) -> AbstractContextManager[Store]:
    """The same, for as long as it is used."""
    return closing(open_at(console, create=create))


def count_of_jobs(store: Store) -> int:
    """How many jobs the store has now."""
    return sum(count for statuses in store.counts().values() for count in statuses.values())


def projections_of(console: Console) -> list[Projection]:
    """The projections that steplog keeps itself, into the table that the settings name."""
    from steplog.projections.runner import own_projections

    return own_projections(config_of(console).report_table.value)


def view_of(console: Console, store: Store, state: State, *, past: bool = False) -> View:
    """The job as stdout shows it, now or as of the state's last event."""
    from steplog.engine.lookup import unique_suffixes
    from steplog.engine.ownership import stalled_among
    from steplog.terminal.tree import View

    job_id = state["job_id"]
    name = unique_suffixes(store, [job_id])[job_id]
    if past:
        return View(state, name, state["recorded_at"], console.look)
    stalled = bool(stalled_among(store, [store.head(job_id)]))
    return View(state, name, store.now(), console.look, stalled=stalled)
