"""Right uses of events and the store that the type checkers must accept."""

from __future__ import annotations

from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import Clock, SystemClock
from steplog.eventstore.events import EventData, PhaseStarted, SubStepCompleted, SubStepSkipped
from steplog.eventstore.store import Answer, Append, Claim, HeadColumns, Store


def append(store: Store, claim: Claim, position: Position, columns: HeadColumns) -> list[Answer]:
    clock: Clock = SystemClock()
    facts: list[EventData] = [
        PhaseStarted(phase="main"),
        SubStepCompleted(phase="main", sub_step="a", attempt=1, result={"rows": [1, 2]}, seconds=0.5),
        SubStepSkipped(phase="main", sub_step="b", cause="condition", reason="not wanted"),
    ]
    return store.append([Append("job", position, claim, seal("job", position, facts, clock.now(), clock), columns)])
