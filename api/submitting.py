"""Putting a job into the queue for whoever asked by HTTP, who wants to know whether it was there before."""

from __future__ import annotations

from typing import Any

from steplog.engine.definition import AnyDefinition
from steplog.engine.store_clock import store_clock
from steplog.engine.submitting import Created, Submission, create
from steplog.eventstore.store import Store


def submit(store: Store, definition: AnyDefinition, input: Any, **how: Any) -> Created:
    """Create the job, or find the one of that key. Raises InputRefused, PayloadRefused, KeyConflict."""
    found = create(store, definition, Submission(input, **how), store_clock(store))
    store.hint()
    return found
