"""What a worker and a handler's process say to each other: JSON lists, each behind its length, over a socket."""

from __future__ import annotations

import asyncio
import socket
from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from steplog.engine import facts as fact
from steplog.engine.facts import AttemptId, Fact

READY = "Ready"
"""The process is about to call the handler."""
ENDED = "Ended"
"""The handler stopped as it was asked to: nothing came of it."""
CANCEL, END, INTERRUPT = "cancel", "end", "interrupt"
"""Asked to stop; settled otherwise; an async handler is cancelled."""
DURABLE, OVER = "durable", "over"
"""What became of a checkpoint."""

SAID_BYTES_MAX = 1 << 24
"""More than any fact comes to: what is longer is no frame."""
STATUS_BYTES = 4
"""How a process ended: its exit code, or the number of a signal below zero."""
_LENGTH_BYTES = 4

Said = list[Any]

_OUTCOMES = (fact.Completed, fact.Failed, fact.SkipRaised)
_FACTS = {kind.__name__: kind for kind in (*_OUTCOMES, fact.CheckpointReached, fact.Logged, fact.Progressed)}


def framed(said: Said) -> bytes:
    """The bytes of it: values that the log takes, or has."""
    encoded = orjson.dumps(said)
    return len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded


def told(happened: Fact) -> Said:
    """A fact as it is said; both sides know which attempt it is of."""
    return [type(happened).__name__, *happened[1:]]


def fact_of(of: AttemptId, said: Said) -> Fact:
    """The fact that was told. Raises ValueError."""
    if said[0] not in _FACTS:
        raise ValueError(f"{said[0]!r} is no fact")
    happened: Fact = _adapter(said[0]).validate_python((of, *said[1:]))
    return happened


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_FACTS[name])


def is_outcome(happened: Fact) -> bool:
    """Whether nothing comes after it."""
    return isinstance(happened, _OUTCOMES)


def receive(connection: socket.socket) -> Said | None:
    """The next that is said, None at the end."""
    head = _exactly(connection, _LENGTH_BYTES)
    body = None if head is None else _exactly(connection, int.from_bytes(head, "big"))
    return None if body is None else orjson.loads(body)


async def areceive(reader: asyncio.StreamReader) -> Said | None:
    """The same where nobody is to be held up. Raises ValueError for what is no frame."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if length > SAID_BYTES_MAX:
            raise ValueError(f"{length} bytes are no frame")
        said = orjson.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if not isinstance(said, list) or not said or not isinstance(said[0], str):
        raise ValueError("it is no list that begins with a word")
    return said


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    received = bytearray()
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            return None
        received += part
    return bytes(received)
