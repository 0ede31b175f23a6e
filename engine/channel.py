"""The reports of a running attempt: its context draft, its progress and its checkpoints, on their way to the log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, Protocol

from steplog.engine import facts as fact
from steplog.engine.context import Context, Fields, changes, fields_of
from steplog.engine.errors import AttemptOver
from steplog.engine.facts import AttemptId, Fact
from steplog.engine.secret_values import holds_secrets, texts_of
from steplog.engine.values import plain
from steplog.engine.vault import Vault
from steplog.eventstore.clock import Clock
from steplog.eventstore.codec import encode, escape
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.limits import (
    ENVELOPE_BYTES_MAX,
    ERROR_MESSAGE_CHARS_MAX,
    LOG_CHARS_MAX,
    LOG_LINE_CHARS_MAX,
    LOG_LINES_MAX,
    PAYLOAD_BYTES_MAX,
)

_TOLD_EVERY_S = 1.0
"""How often progress and lines are recorded while the attempt goes on."""


class Reported(Protocol):
    """Where facts of a running attempt go: the runner's inbox, here or in another process."""

    def post(self, fact: Fact, durable: Future[None] | None = None) -> None:
        """Add a fact; `durable` is done once it is, or cannot be any more."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it after a while."""


class Channel:
    """An attempt's reports, from whichever thread its handler runs in."""

    def __init__(self, of: AttemptId, inbox: Reported, clock: Clock, vault: Vault) -> None:
        self.clock = clock
        self.of = of
        self.vault = vault
        self._inbox = inbox
        self._draft: Context | None = None
        self._base: Fields = {}
        self._telling = threading.Lock()
        self._told_at = float("-inf")
        self._tells_later = False
        self._untold: fact.Progressed | None = None
        self._lines: list[str] = []
        self._lines_left = LOG_LINES_MAX
        self._chars_left = LOG_CHARS_MAX
        self._dropped = 0
        self._over = False
        self.commit: Callable[[fact.CheckpointReached], None] | None = None
        """How a transactional attempt records a checkpoint: as the end of its present transaction."""
        self.cancelled = False
        """Whether the handler was asked to stop; until the attempt is over, what it reports is recorded."""
        self.on_cancel: Callable[[], None] | None = None
        """Told when that changes, or the attempt is over: the handler may be in another process."""

    @property
    def is_over(self) -> bool:
        """Whether the attempt was settled otherwise."""
        return self._over

    def cancel(self) -> None:
        """Ask the handler to stop."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def end(self) -> None:
        """The attempt was settled otherwise."""
        self._over = True
        self.cancel()

    def follow(self, draft: Context, base: Fields) -> None:
        """The draft whose changes count, and the fields it is compared with."""
        self._draft, self._base = draft, base

    def changed(self) -> Fields:
        """What the attempt has set in the context so far."""
        return changes(self._base, fields_of(self._draft, self.vault)) if self._draft is not None else {}

    def scrub(self, text: str) -> str:
        """The text without the secrets that the attempt was given, or has put into its draft."""
        if self._draft is not None and holds_secrets(type(self._draft)):
            self.vault.learn(texts_of(self._draft))
        return self.vault.scrub(text)

    def checkpoint(self, cursor: Any) -> Awaitable[None]:
        kept, changed = plain(cursor, "cursor", self.vault), self.changed()
        refuse_unrecordable({"cursor": kept, "draft": {"set": changed}}, "checkpoint")
        self._refuse_if_over()
        if self.of.undoing:
            return _Done()
        reached = fact.CheckpointReached(self.of, kept, changed)
        if self.commit is not None:
            self._tell()
            self.commit(reached)
            return _Done()
        durable = self.reach(reached)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            durable.result()
            return _Done()
        return asyncio.wrap_future(durable)

    def reach(self, checkpoint: fact.CheckpointReached) -> Future[None]:
        """Record it behind what is untold; done once it is durable. Raises AttemptOver."""
        self._refuse_if_over()
        self._tell()
        durable: Future[None] = Future()
        durable.set_running_or_notify_cancel()
        self._inbox.post(checkpoint, durable)
        return durable

    def _refuse_if_over(self) -> None:
        if self._over:
            raise AttemptOver("the attempt was settled otherwise: its checkpoint is not recorded")

    def progress(self, done: float, total: float | None, note: str | None) -> None:
        numbers = {"done": done} if total is None else {"done": done, "total": total}
        for name, number in numbers.items():
            if type(number) not in (int, float):
                raise PayloadRefused(f"progress.{name}", f"{type(number).__qualname__} is no number")
        encode(numbers, path="progress")
        told = None if note is None else escape(self.scrub(note), ERROR_MESSAGE_CHARS_MAX)
        with self._telling:
            self._untold = fact.Progressed(self.of, done, total, told)
        self._tell_in_time()

    def log(self, lines: Iterable[str]) -> None:
        with self._telling:
            for line in lines:
                self._keep(escape(self.scrub(line), LOG_LINE_CHARS_MAX))
        self._tell_in_time()

    def relay(self, lines: list[str]) -> None:
        """Lines that another process has kept within bounds already."""
        with self._telling:
            self._lines += lines
        self._tell_in_time()

    def _keep(self, line: str) -> None:
        if self._lines_left and len(line) <= self._chars_left:
            self._lines.append(line)
            self._lines_left -= 1
            self._chars_left -= len(line)
        else:
            self._lines_left = 0
            self._dropped += 1

    def flush(self) -> None:
        """The handler ends, or is given up: tell what is untold."""
        if self._dropped:
            with self._telling:
                kept = f"an attempt keeps {LOG_LINES_MAX} lines of {LOG_CHARS_MAX} characters in all"
                self._lines.append(f"({self._dropped} more lines were dropped: {kept})")
                self._dropped = 0
        self._tell()

    def _tell_in_time(self) -> None:
        """Tell at once where nothing was told for a while; what follows is told together, a little later."""
        if self.clock.monotonic() - self._told_at >= _TOLD_EVERY_S:
            self._tell()
        elif not self._tells_later:
            self._tells_later = True
            self._inbox.call_later(_TOLD_EVERY_S, self._tell)

    def _tell(self) -> None:
        """From the handler's thread or the loop's: each report is told once."""
        if self._untold is None and not self._lines:
            self._tells_later = False
            return
        with self._telling:
            self._told_at, self._tells_later = self.clock.monotonic(), False
            lines, self._lines = self._lines, []
            untold, self._untold = self._untold, None
            if lines:
                self._inbox.post(fact.Logged(self.of, lines))
            if untold is not None:
                self._inbox.post(untold)


class _Done(Awaitable[None]):
    """Already there."""

    def __await__(self) -> Any:
        return iter(())


def refuse_unrecordable(values: Fields, what: str) -> None:
    """Refuse, while the handler can still be told, values that one event could not hold together."""
    encode(values, path=what, bytes_max=PAYLOAD_BYTES_MAX - ENVELOPE_BYTES_MAX)
