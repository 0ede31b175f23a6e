"""Pages that many viewers fetch at one moment because they were told of the same event: made once.

A viewer's request says what it was told last (`seen`); who was told the same gets what was made for the first of them,
which is at least as new. Kept for a moment alone, for what a page says of the time.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from starlette.requests import Request
from starlette.responses import HTMLResponse

KEPT_S = 1.0
KEPT_PAGES = 64
TURNS = 64


class SharedPages:
    """Pages made a moment ago."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()
        self._turns = [threading.Lock() for _ in range(TURNS)]
        self._lock = threading.Lock()

    def page(self, request: Request, make: Callable[[], HTMLResponse]) -> HTMLResponse:
        """The page that the request asks for; `make` where nobody who was told the same has asked for it just now."""
        if not request.query_params.get("seen"):
            return make()
        caller, root = request.state.caller, request.scope.get("root_path", "")
        name = (root, request.url.path, request.url.query, caller.name, caller.scopes, caller.token is None)
        with self._turns[hash(name) % TURNS]:
            body = self._fresh(name)
            if body is not None:
                return HTMLResponse(body)
            made = make()
            if made.status_code == 200:
                self._keep(name, bytes(made.body))
            return made

    def _fresh(self, name: Hashable) -> bytes | None:
        at, body = self._kept.get(name, (0.0, b""))
        return body if body and time.monotonic() - at < KEPT_S else None

    def _keep(self, name: Hashable, body: bytes) -> None:
        with self._lock:
            self._kept[name] = (time.monotonic(), body)
            self._kept.move_to_end(name)
            while len(self._kept) > KEPT_PAGES:
                self._kept.popitem(last=False)
