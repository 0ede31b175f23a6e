"""The group-commit writer: one thread per process and store drains a queue of owners' appends.

The running commit is the batching window: what arrives meanwhile goes into the next one. There is no timer.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future

from steplog.eventstore.errors import StoreUnavailable
from steplog.eventstore.store import Answer, Append, Store

logger = logging.getLogger("steplog.eventstore")

_BATCH_MAX = 256
_RESEND_WAITS_S = (0.05, 0.1, 0.2, 0.5, 1.0)

_Queued = tuple[Append, "Future[Answer]"]


class Writer:
    """Appends for many jobs through one transaction at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="steplog-writer", daemon=True)
        self._thread.start()

    def append(self, item: Append) -> Future[Answer]:
        """Queue an append; the future resolves once it is durable or refused. At most one in flight per job."""
        answer: Future[Answer] = Future()
        answer.set_running_or_notify_cancel()
        self._queue.put((item, answer))
        return answer

    def close(self) -> None:
        """Write what is queued, then end the thread. An append that the store cannot take raises StoreUnavailable."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()

    def _drain(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < _BATCH_MAX:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            self._write(batch)

    def _write(self, batch: list[_Queued]) -> None:
        try:
            answers = self._append_until_known([item for item, _ in batch])
        except Exception as error:
            for _, promised in batch:
                promised.set_exception(error)
            return
        for (_, promised), answer in zip(batch, answers, strict=True):
            promised.set_result(answer)

    def _append_until_known(self, items: list[Append]) -> list[Answer]:
        """Send the same events again until they are stored or refused: they cannot be stored twice."""
        tries = 0
        while True:
            try:
                return self._store.append(items)
            except StoreUnavailable as error:
                if self._stopping.is_set():
                    raise
                logger.warning("%s; sending the same %d appends again", error, len(items))
                time.sleep(_RESEND_WAITS_S[min(tries, len(_RESEND_WAITS_S) - 1)])
                tries += 1
