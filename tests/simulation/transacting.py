"""Handlers' transactions as a story has them: statements that are kept or not, and commits that fail by plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from simulation.notes import Committed, Notes
from simulation.story import TransactionFault
from simulation.turns import current

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import OutcomeUnknown, StoreUnavailable, TransactionClosed
from steplog.eventstore.events import Event
from steplog.eventstore.store import Answer, Append, Code
from steplog.eventstore.stream import Mark, judge
from steplog.eventstore.transaction import Rows
from steplog.testing.memory import MemoryStore

REFUSED = "take nothing more"
"""A statement after which the store cannot take the transaction's end."""
WAIT_S = 0.05
"""How often somebody looks whether a lock is free."""
TIMEOUT_S = 5.0
"""How long a transaction may be open that stops all other writers, where nobody said."""


class Database(Protocol):
    """What transactions see of the simulation."""

    store: MemoryStore
    notes: Notes
    holder: Transacting | None

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it then, whatever becomes of the processes."""
        ...

    def stored(self, item: Append) -> None:
        """Take note of an append that a commit has stored."""
        ...

    def befalls(self, fault: TransactionFault) -> None:
        """Let happen what happens meanwhile."""
        ...


class Transacting:
    """One transaction of a handler; nothing of it is there before its commit."""

    def __init__(self, database: Database, fault: TransactionFault | None, timeout_s: float | None, alone: bool):
        self.timeout_s = timeout_s or (TIMEOUT_S if alone else None)
        self.is_lost = False
        self._database = database
        self._fault = fault
        self._effects: list[int] = []
        self._item: Append | None = None
        self._over = False
        self._takes_no_end = False
        self._comes_late: Callable[[], None] | None = None
        while alone and database.holder is not None:
            current().sleep(WAIT_S)
        if alone:
            database.holder = self

    # --- the handler's statements ------------------------------------------------------------------------------------

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        self._refuse_unless_open()
        if self._struck("broken"):
            self.is_lost = True
            self._refuse_unless_open()
        if statement == REFUSED:
            self._takes_no_end = True
        self._effects += parameters
        return Rows([], 1)

    def execute_many(self, statement: str, each: Iterable[Sequence[Any]]) -> Rows:
        raise NotImplementedError

    # --- its end -----------------------------------------------------------------------------------------------------

    def append(self, item: Append) -> Answer:
        self._refuse_unless_open()
        if self._takes_no_end or self._struck("refused"):
            raise StoreUnavailable("the store cannot take it")
        store = self._database.store
        if self._database.holder is not None:
            self._database.holder.end()
        head = store.head(item.job_id)
        if self._database.holder not in (None, self) or self._struck("busy"):
            return Answer(item.job_id, Code.BUSY, head.version)
        rows = store.inspection.rows(item.job_id, max(item.expected.version - 1, 0))
        code = judge(item, head, lambda: {row.version: Mark(row.event_id, row.hash) for row in rows})
        self._item = item if code is Code.STORED else None
        return Answer(item.job_id, code, item.events[-1].version if self._item else head.version)

    def tail(self, job_id: str, known: Position) -> list[Event]:
        return list(self._database.store.read(job_id, known.version))

    def commit(self) -> None:
        self._refuse_unless_open()
        self._over = True
        fault = self._fault
        if fault is None:
            self._apply()
            return
        self._database.notes.covered[f"commit {fault.kind}"] += 1
        self._database.befalls(fault)
        match fault.kind:
            case "unanswered":
                self._apply()
            case "lost":
                self._let_go()
            case "late":
                self._hold(fault.seconds, self._apply)
            case "late and lost":
                self._hold(fault.seconds, self._let_go)
            case _:
                self._apply()
                return
        raise OutcomeUnknown("the connection broke at its commit")

    def roll_back(self) -> None:
        if not self._over:
            self._over = True
            self._let_go()

    def end(self) -> None:
        """Let its late commit come to what it comes to: now, where somebody waits for its lock."""
        if self._comes_late is not None:
            coming, self._comes_late = self._comes_late, None
            coming()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _struck(self, kind: str) -> bool:
        if self._fault is None or self._fault.kind != kind:
            return False
        self._database.notes.covered[f"transaction {kind}"] += 1
        self._database.befalls(self._fault)
        self._fault = None
        return True

    def _refuse_unless_open(self) -> None:
        if self._over:
            raise TransactionClosed
        if self.is_lost:
            raise StoreUnavailable("the connection broke inside the transaction")

    def _apply(self) -> None:
        self._let_go()
        if self._item is not None:
            self._database.stored(self._item)
        event_ids = [event.event_id for event in self._item.events] if self._item is not None else []
        self._database.notes.committed.append(Committed(self._effects, event_ids))

    def _hold(self, seconds: float, coming: Callable[[], None]) -> None:
        self._comes_late = coming
        self._database.holder = self
        self._database.later(seconds, self.end)

    def _let_go(self) -> None:
        if self._database.holder is self:
            self._database.holder = None
