"""How patient a worker is. All times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """A worker's timing and limits."""

    lease_s: float = 15.0
    """How long a worker counts as alive after its last heartbeat (PostgreSQL)."""
    heartbeat_s: float = 5.0
    grace_s: float = 10.0
    """How long what runs may go on after a stop or a timeout."""
    interruptions_max: int = 3
    """Interruptions of one sub-step by its owner's death before the job parks."""
    poll_s: float = 1.0
    """How often a worker of a fleet looks for work; it grows while there is none, and a hint cuts it short."""
    poll_s_max: float = 5.0
    release_after_s: float = 5.0
    """A worker of a fleet gives a job back that only waits for longer than that."""
    store_state_every: int = 500
    """Events between two stored states of a job."""
