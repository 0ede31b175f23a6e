"""The store's time in this process, and a job's own on top of it. A machine's clock that is set moves neither."""

from __future__ import annotations

from datetime import datetime

from steplog.eventstore.clock import Clock, SystemClock, instant, later
from steplog.eventstore.store import Store


class StoreClock(SystemClock):
    """What the store's clock said when it was last asked, and gone on by what has passed here since."""

    def __init__(self, said: str) -> None:
        self.set(said)

    def set(self, said: str) -> None:
        """Go on from what the store says: rather behind it than ahead, what is due by this is due there."""
        self._since = datetime.fromisoformat(said).timestamp() - self.monotonic()

    def now(self) -> str:
        return instant(self._since + self.monotonic())


class JobTime:
    """A job's time: the store's as long as that goes on. It never goes back and never stands still."""

    def __init__(self, clock: Clock, at: str) -> None:
        self._clock = clock
        self._at, self._passed = at, clock.monotonic()

    def now(self, not_before: str) -> str:
        """The present instant; where the store's clock was set back, behind the last one by what has passed since."""
        now, passed = self._clock.now(), self._clock.monotonic()
        if now < self._at:
            now = later(self._at, passed - self._passed)
        self._at, self._passed = max(now, not_before), passed
        return self._at


def store_clock(store: Store) -> StoreClock:
    """The store's time as of now."""
    return StoreClock(store.now())
