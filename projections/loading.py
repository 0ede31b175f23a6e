"""Reading a job: its state now or at a version, from a stored state and the events after it."""

from __future__ import annotations

from dataclasses import dataclass

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import JobNotFound
from steplog.eventstore.store import Store, StoredState
from steplog.eventstore.stream import position_of as position_of
from steplog.projections.evolve import as_state, fold
from steplog.projections.state import REDUCER_VERSION, State


@dataclass(frozen=True, slots=True)
class Loaded:
    """A state and where in the log it stands."""

    state: State
    position: Position
    stored_at: int = 0
    """The version of the stored state it was folded from, 0 if there was none."""


def load(store: Store, job_id: str, until: int | None = None) -> Loaded:
    """The job as of `until` or of now.

    Raises JobNotFound, and DamagedLog or UnknownEvent by job and version.
    """
    stored = store.load_state(job_id, REDUCER_VERSION, until)
    after = stored.position.version if stored else 0
    tail = list(store.read(job_id, after, until))
    if stored is None and not tail:
        raise JobNotFound(job_id)
    state = fold(tail, as_state(stored.state) if stored else None)
    position = position_of(tail[-1]) if tail or stored is None else stored.position
    return Loaded(state, position, after)


def to_store(loaded: Loaded) -> StoredState:
    """The state as the store keeps it."""
    return StoredState(loaded.state["job_id"], loaded.position, REDUCER_VERSION, dict(loaded.state))
