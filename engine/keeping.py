"""Storing a running job's state now and then, so that reading need not begin at its first event."""

from __future__ import annotations

import asyncio
import logging

from steplog.engine.history import Loaded, to_store
from steplog.engine.outbox import Outbox
from steplog.eventstore.chain import Position
from steplog.eventstore.store import Store
from steplog.projections.fan_out import items_in
from steplog.projections.state import State

logger = logging.getLogger("steplog.engine")

SOONER = 10
"""Where a phase ended, or a job is taken over, its state is kept after so many times fewer events."""


class StateKeeper:
    """Of one job; off the hot path."""

    def __init__(self, store: Store, outbox: Outbox, every: int, stored_at: int) -> None:
        self._store = store
        self._outbox = outbox
        self._every = every
        self._stored_at = stored_at
        self._enough = every
        """How many events there must be for the next one: more where the state was large when it was last looked at."""

    def keep(self, state: State, position: Position, *, sooner: bool = False) -> None:
        """Store the state if enough has come since the last one: of a large one more, so that all that is written stays
        in proportion to the log; where a phase ended or the job was taken over, less.
        """
        if not self._is_enough(position, sooner):
            return
        self._enough = max(self._every, state["total"], items_in(state))
        if not self._is_enough(position, sooner):
            return
        self._stored_at = position.version
        stored = to_store(Loaded(state, position))
        saving = self._outbox.call(self._store.save_state, stored)
        saving.add_done_callback(_log_failure)

    def _is_enough(self, position: Position, sooner: bool) -> bool:
        return position.version - self._stored_at >= (self._enough // SOONER if sooner else self._enough)


def _log_failure(saving: asyncio.Future[None]) -> None:
    """A state that was not stored costs time at the next read, nothing else."""
    if not saving.cancelled() and (error := saving.exception()) is not None:
        logger.warning("a state was not stored: %s", error)
