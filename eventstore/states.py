"""Stored states as the databases keep them: JSON text, and a digest that tells whether it is what was stored."""

from __future__ import annotations

import hashlib
import logging

import orjson

from steplog.eventstore.chain import Position
from steplog.eventstore.errors import DamagedLog
from steplog.eventstore.inspection import StoredState

ANY_BUT_STORED = -1
"""The version of no reducer: with it a job is opened from its first event on."""

_log = logging.getLogger("steplog.eventstore")


def encode_state(stored: StoredState) -> tuple[str, str]:
    """Its text and digest."""
    # What is in it came out of the log, where it was checked; it may nest deeper than a payload.
    text = orjson.dumps(stored.state, option=orjson.OPT_SORT_KEYS).decode()
    return text, _digest(stored.position, text)


def decode_state(job_id: str, reducer_version: int, at: Position, text: str, digest: str | None) -> StoredState | None:
    """The state, None where that is not the text which was stored there: the log is folded anew then."""
    if digest == _digest(at, text):
        return StoredState(job_id, at, reducer_version, orjson.loads(text))
    if digest is not None:  # older versions of steplog stored none
        _log.warning("the state of job %s stored at version %d was altered, and is not used", job_id, at.version)
    return None


def audited_state(job_id: str, reducer_version: int, at: Position, text: str, digest: str | None) -> StoredState:
    """The state as it is there. Raises DamagedLog at one that is no JSON, or not what was stored."""
    try:
        state = orjson.loads(text)
    except ValueError as error:
        raise DamagedLog(job_id, at.version, f"the state stored there is no JSON: {error}") from error
    if digest not in (None, _digest(at, text)):
        raise DamagedLog(job_id, at.version, "the state stored there was altered, or its digest was")
    return StoredState(job_id, at, reducer_version, state)


def _digest(at: Position, text: str) -> str:
    """Of the state, and of which log it is one."""
    return hashlib.sha256(f"{at.hash} {text}".encode()).hexdigest()
