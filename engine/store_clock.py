"""The store's time, on this machine's clock."""

from __future__ import annotations

from steplog.eventstore.clock import Clock, SystemClock, seconds_between
from steplog.eventstore.store import Store


def store_clock(store: Store) -> Clock:
    """The machine's clock in the store's time, rather behind it than ahead: what is due by this is due there."""
    stored = store.now()
    return SystemClock(seconds_between(SystemClock().now(), stored))
