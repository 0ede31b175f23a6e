"""How a handler's transaction ends in memory: what it appends is stored when its database commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steplog.eventstore.chain import Position
from steplog.eventstore.events import Event
from steplog.eventstore.store import Answer, Append, Code
from steplog.eventstore.stream import tail_of
from steplog.testing.memory_log import JobInMemory, owned

if TYPE_CHECKING:
    from steplog.testing.memory import MemoryStore


class EndingInMemory:
    """The end of one transaction of one store."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._held: JobInMemory | None = None
        self._staged: Append | None = None

    def append(self, item: Append) -> Answer:
        store = self._store
        with store._lock:
            if self._held is None:
                store._await_head(item.job_id)
            if item.job_id not in store._jobs:
                return Answer(item.job_id, Code.MISSING, 0)
            self._held = job = store._jobs[item.job_id]
            job.held, code = True, store._judged(job, item)
            self._staged = item if code is Code.STORED else None
            return Answer(item.job_id, code, item.events[-1].version if self._staged else job.head.version)

    def tail(self, job_id: str, known: Position) -> list[Event]:
        with self._store._lock:
            job = self._store._job(job_id)
            return tail_of(job.head, job.rows[known.version :], known)

    def commit(self) -> None:
        with self._store._lock:
            self._store._database.execute("COMMIT")
            if self._held is not None and (item := self._staged) is not None:
                head = owned(self._held.head, None) if item.release else self._held.head
                self._store._store(self._held, head, item.events, item.columns)

    def let_go(self) -> None:
        store = self._store
        if store._database.in_transaction:
            store._database.execute("ROLLBACK")
        with store._lock:
            if self._held is not None:
                self._held.held = False
            store._let_go.notify_all()
        store._database_turn.release()
