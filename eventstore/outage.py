"""What the log file says while the store is away: once when it begins, now and then while it lasts, once at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from steplog.eventstore.errors import OutcomeUnknown, StoreUnavailable

logger = logging.getLogger("steplog.eventstore.outage")

SAID_EVERY_S = 30.0


class Outage:
    """One store's outage, as several threads meet it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said_at = 0.0
        self._loud = False

    def met(self, error: StoreUnavailable) -> None:
        """An append could not be written; it is going to be sent again.

        A connection that broke is worth a warning. A store that says it cannot, or stays away, is an error.
        """
        with self._lock:
            now = self._monotonic()
            begins = self._since is None
            since = self._since = now if self._since is None else self._since
            loud = not isinstance(error, OutcomeUnknown) or now - since >= SAID_EVERY_S
            if not begins and now - self._said_at < SAID_EVERY_S and (self._loud or not loud):
                return
            self._said_at, self._loud = now, self._loud or loud
        level = logging.ERROR if loud else logging.WARNING
        logger.log(level, "%s; appends wait and are sent again until it is known (%.0f s so far)", error, now - since)

    def over(self) -> None:
        """An append was written."""
        if self._since is None:
            return
        with self._lock:
            since, self._since, self._loud = self._since, None, False
        if since is not None:
            logger.warning("the store takes appends again, after %.1f s", self._monotonic() - since)
