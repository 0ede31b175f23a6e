"""The signals that a job under test waits for, sent by the test's own hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steplog.engine import operators
from steplog.engine.history import load
from steplog.testing.process import Surroundings

SENT_BY = "tester"


def send_awaited(around: Surroundings, job_id: str, signals: Mapping[str, Any]) -> bool:
    """Send a job that nobody runs what it waits for, one for each sub-step that does; whether there was any."""
    state = load(around.store, job_id).state
    if state["status"] != "queued":
        return False
    waits = [step["wait"] for phase in state["phases"].values() for step in phase["sub_steps"].values()]
    awaited = [wait["signal"] for wait in waits if wait and wait["signal"]]
    sent = [name for name in awaited if name in signals]
    for name in sent:
        operators.signal(around.store, job_id, name, signals[name], by=SENT_BY, clock=around.clock)
    return bool(sent)
