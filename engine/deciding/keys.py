"""Idempotency keys: what others recognise a repetition by. Pure."""

from __future__ import annotations

from hashlib import sha256

from steplog.projections.plan import Key


def idempotency_key(job_id: str, key: Key, generation: int, item: str | None = None) -> str:
    """The same for every attempt of a sub-step, or of an item of it, in one generation, and for nothing else."""
    return sha256("\n".join((job_id, key, item or "", str(generation))).encode()).hexdigest()[:32]
