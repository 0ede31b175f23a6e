"""Serving the app with uvicorn: on loopback unless tokens say who may come in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from steplog.api.settings import ApiSettings
from steplog.eventstore.errors import SteplogError

KEEP_ALIVE_S = 10
STOPPING_S = 3
HEADERS_BYTES_MAX = 32 * 1024


class AddressRefused(SteplogError):
    """Everybody could reach that address and do everything."""

    next_step = "give tokens: --tokens FILE or STEPLOG_API_TOKENS, each NAME=read+operate:SECRET"

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} is no loopback address, and without a token everybody could do everything there")
        self.host = host


def refuse_open_door(host: str, settings: ApiSettings) -> None:
    """Raise AddressRefused for an address that others reach, unless there are tokens."""
    if not settings.tokens and not _is_loopback(host):
        raise AddressRefused(host)


def serve(app: FastAPI, host: str, port: int, *, started: Callable[[str], None] = lambda url: None) -> None:
    """Serve until a signal comes; `started` is told the address once requests are answered there."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOPPING_S,
        h11_max_incomplete_event_size=HEADERS_BYTES_MAX,
        http="h11",
    )
    _Server(config, started, app.state.service.changes.let_go).run()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, told: Callable[[str], None], let_go: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = told
        self._let_go = let_go

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # as below
        self._let_go()  # streams end by themselves; uvicorn would wait for them, and then break them off
        await super().shutdown(sockets)  # type: ignore[arg-type]  # as below

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # sockets pass through
        await super().startup(sockets)  # type: ignore[arg-type]  # as above
        if self.started:
            bound = self.servers[0].sockets[0].getsockname()
            name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            self._told(f"http://{name}:{bound[1]}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
