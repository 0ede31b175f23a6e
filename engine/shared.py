"""The workers of an event loop: one per store while any run needs it, so that its runs share their commits.

Runs that are awaited together go through one writer, whose running commit gathers what they append meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from steplog.engine.config import store_url
from steplog.engine.settings import Settings
from steplog.engine.threads import at_once, finished
from steplog.engine.worker import Worker
from steplog.eventstore.connect import open_store
from steplog.eventstore.store import Store

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def worker_for(store: Store | str | None, settings: Settings | None = None) -> AsyncIterator[Worker]:
    """The running loop's worker for that store: who comes first opens it, who leaves last closes it.

    A store given by its URL, or not at all, is opened and closed with it. In the main thread SIGINT and SIGTERM hand
    back what runs, and a second one does so at once; a signal that the host program listens to is left to it.
    """
    workers = _of_loop.setdefault(asyncio.get_running_loop(), _LoopWorkers())
    place = workers.enter(store or store_url(), settings or Settings())
    try:
        yield await asyncio.shield(place.opening)
    finally:
        workers.leave(place)
        if not place.users:
            await _close(place)


@dataclass(eq=False, slots=True)
class _Place:
    """One store's worker and how many use it."""

    opening: asyncio.Task[Worker]
    owns_store: bool
    users: int = 0

    @property
    def worker(self) -> Worker | None:
        """The worker, once it is open."""
        opened = self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None
        return self.opening.result() if opened else None

    @property
    def is_open_to_more(self) -> bool:
        """Whether it opens, or takes more jobs; one that does not ends with those it has."""
        return not self.opening.done() or (self.worker is not None and self.worker.takes_more)


class _LoopWorkers:
    """Those of one event loop."""

    def __init__(self) -> None:
        self._joinable: dict[Hashable, _Place] = {}
        self._places: list[_Place] = []
        self._signals: list[int] = []
        self._heard_before: dict[signal.Signals, Any] = {}
        """What the signals listened to did before."""

    def enter(self, store: Store | str, settings: Settings) -> _Place:
        if not self._places:
            self._listen()
        key = (store if isinstance(store, str) else id(store), settings)
        place = self._joinable.get(key)
        if place is None or not place.is_open_to_more:
            place = _Place(asyncio.create_task(self._open(store, settings)), isinstance(store, str))
            self._joinable[key] = place
            self._places.append(place)
        place.users += 1
        return place

    def leave(self, place: _Place) -> None:
        place.users -= 1
        if place.users:
            return
        self._joinable = {key: other for key, other in self._joinable.items() if other is not place}
        self._places.remove(place)
        if not self._places:
            self._stop_listening()

    async def _open(self, store: Store | str, settings: Settings) -> Worker:
        opening = at_once(_entered, store, settings)
        try:
            worker = await asyncio.shield(opening)
        except asyncio.CancelledError:  # the loop ends: nobody else will close what is opened all the same
            await asyncio.wait({opening})
            if opening.exception() is None:
                await at_once(_left, opening.result(), isinstance(store, str))
            raise
        for number in self._signals:
            worker.stop(number)
        return worker

    # --- signals -----------------------------------------------------------------------------------------------------

    @property
    def heard(self) -> set[signal.Signals]:
        """The signals of this process that are heard here."""
        return set(self._heard_before)

    def _listen(self) -> None:
        self._signals.clear()
        if threading.current_thread() is threading.main_thread():
            self._heard_before = {number: signal.getsignal(number) for number in _SIGNALS if _is_free(number)}
            for number in self._heard_before:
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def _stop_listening(self) -> None:
        for number, before in self._heard_before.items():
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, before)
        self._heard_before = {}

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        for place in self._places:
            if place.worker is not None:
                place.worker.stop(number)


def _is_free(number: signal.Signals) -> bool:
    """Whether the host program leaves the signal to Python or to `asyncio.run`."""
    handler = signal.getsignal(number)
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    return isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner)


def _entered(store: Store | str, settings: Settings) -> Worker:
    opened = open_store(store) if isinstance(store, str) else store
    try:
        return Worker(opened, settings=settings).__enter__()
    except BaseException:
        if opened is not store:
            opened.close()
        raise


def _left(worker: Worker, owns_store: bool) -> None:
    try:
        worker.__exit__(None, None, None)
    finally:
        if owns_store:
            worker.store.close()


async def _close(place: _Place) -> None:
    await finished(asyncio.gather(place.opening, return_exceptions=True))
    if place.worker is not None:
        await finished(at_once(_left, place.worker, place.owns_store))


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWorkers] = WeakKeyDictionary()


def _listen_no_more() -> None:
    """In a child that a handler forked: what it is sent would wake the parent's loop, whose socket it has."""
    for number in {number for workers in _of_loop.values() for number in workers.heard}:
        signal.set_wakeup_fd(-1)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


os.register_at_fork(after_in_child=_listen_no_more)
