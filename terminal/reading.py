"""Reading a job's history the way a person asks for it: forwards, backwards, as it grows, up to a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice

from steplog.eventstore.events import Event
from steplog.eventstore.store import Store
from steplog.projections.state import ENDED

PAGE_EVENTS = 500
POLL_S = 0.2


def first_event(store: Store, job_id: str) -> Event:
    """What the job began with. Raises JobNotFound, LogError."""
    store.head(job_id)
    return next(store.read(job_id, 0, 1))


def backwards(store: Store, job_id: str, after: int) -> Iterator[Event]:
    """From the last event down to the one behind `after`, in bounded memory."""
    until = store.head(job_id).version
    while until > after:
        page = list(store.read(job_id, max(after, until - PAGE_EVENTS), until))
        yield from reversed(page)
        until -= len(page)


def as_it_grows(
    store: Store, job_id: str, after: int, caught_up: Callable[[], None], wait: Callable[[float], None] = time.sleep
) -> Iterator[Event]:
    """What is in the log and what comes, until the job has ended; `caught_up` is called before each wait."""
    while True:
        for event in store.read(job_id, after):
            after = event.version
            yield event
        head = store.head(job_id)
        if head.version > after:
            continue
        if head.columns.status in ENDED:
            return
        caught_up()
        wait(POLL_S)


def chosen(events: Iterator[Event], types: frozenset[str], limit: int | None) -> Iterator[Event]:
    """The first `limit` events of those types, of all types if none is named."""
    return islice((event for event in events if not types or event.type in types), limit)


def version_at(store: Store, job_id: str, instant: str) -> int:
    """The job's version at an instant, 0 before its first event."""
    version = 0
    for event in store.read(job_id):
        if event.recorded_at > instant:
            break
        version = event.version
    return version
