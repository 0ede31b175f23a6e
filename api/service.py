"""What every route stands on: the store, its jobs as they are read, the changes as they come, the settings."""

from __future__ import annotations

from dataclasses import dataclass

from steplog.api.changes import Changes
from steplog.api.durations import Durations
from steplog.api.jobs import Jobs
from steplog.api.messages import Messages
from steplog.api.settings import ApiSettings
from steplog.api.sharing import SharedPages
from steplog.eventstore.store import Store


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one server."""

    store: Store
    jobs: Jobs
    changes: Changes
    settings: ApiSettings
    durations: Durations
    shared: SharedPages
    messages: Messages
