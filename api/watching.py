"""Counting requests in: how long each took, by the route's pattern and never by what was asked for."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from steplog.api.durations import Durations
from steplog.api.guard import App, Message, Receive, Send

_UNKNOWN = "none"
"""The route of a request that none was found for."""


class Watched:
    """The app, with each request counted in when its answer begins."""

    def __init__(self, app: App, durations: Durations) -> None:
        self._app = app
        self._durations = durations

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", _UNKNOWN)
                self._durations.observe(scope["method"], route, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, sending)
