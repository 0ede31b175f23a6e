"""Wrong uses of events and the store that the type checkers must refuse, each marked."""

from __future__ import annotations

from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.events import NewEvent, PhaseStarted, SubStepCompleted, SubStepSkipped
from steplog.eventstore.store import Append, Claim, Store


def wrong_events() -> None:
    PhaseStarted()  # refused
    PhaseStarted(phase=1)  # refused
    SubStepCompleted(phase="p", sub_step="s", attempt="1", seconds=0.5)  # refused
    SubStepSkipped(phase="p", sub_step="s", cause="bored", reason="none")  # refused


def wrong_appends(store: Store, claim: Claim, events: list[NewEvent], position: Position) -> None:
    position.version = 2  # refused
    events[0].payload = b"{}"  # refused
    seal("job", position, [{"phase": "p"}], "now", SystemClock())  # refused
    store.append(events)  # refused
    store.append([Append("job", 7, claim, events, None)])  # refused
