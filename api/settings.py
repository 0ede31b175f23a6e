"""What a server is told at its start: who may come in, under which names it answers, and how much it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from steplog.api.tokens import Token

API = "/api/v1"
"""Where the API is, behind whatever the app is mounted at."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How the API behaves; the defaults are those of `steplog serve`."""

    modules: Sequence[str] = ()
    """Modules whose workflows can be submitted, beside steplog's own examples."""
    tokens: Sequence[Token] = ()
    """Without any, everybody who reaches the port may do everything: the server then answers on loopback only."""
    hosts: frozenset[str] = field(default_factory=frozenset)
    """Names besides those of loopback that requests may be addressed to; with tokens, none means any."""
    read_only: bool = False
    """Whether everything that would write is refused."""
    body_bytes_max: int = 1 << 20
    body_seconds_max: float = 10.0
    """How long a request's body may take to come in."""
    page_jobs_max: int = 500
    page_events_max: int = 1000
    wait_s_max: float = 60.0
    """How long a long poll may wait."""
    clients_max: int = 2000
    """Streams and long polls that are open at once."""
    client_events_max: int = 256
    """How far a stream's reader may fall behind before it is let go; it can resume."""
    lag_s_max: float = 60.0
    """How far projections may be behind before the server says that it is not ready."""
    keep_alive_s: float = 15.0
    """How often a quiet stream says that it is alive."""
