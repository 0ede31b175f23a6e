"""The door: who comes in, to what, from which page, with how much. A pure ASGI layer before everything else.

Nothing is reached without the scope that `scope_needed` names for it, and that is everything but a few public paths.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from steplog.api.problems import Problem
from steplog.api.settings import LOOPBACK_NAMES, ApiSettings
from steplog.api.tokens import COOKIE, EVERYTHING, Scope, Token, token_of_cookie, token_of_secret

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SAFE = frozenset({"GET", "HEAD"})
_PUBLIC = re.compile(r"/healthz|/readyz|/login|/static/[a-z0-9.-]+")
_APPENDS = re.compile(r"/api/v1/jobs/[^/]+/events")
_SUBMITS = re.compile(r"/api/v1/workflows/.+/jobs")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Caller(NamedTuple):
    """Who sent a request; `name` is who did it, in the log."""

    name: str
    scopes: frozenset[Scope]
    token: Token | None = None


def scope_needed(method: str, path: str) -> frozenset[Scope] | None:
    """Scopes of which a request needs one; None for what is public."""
    if _PUBLIC.fullmatch(path):
        return None
    if method in SAFE or path == "/logout":
        return frozenset({"read"})
    if _APPENDS.fullmatch(path):
        return frozenset({"ingest"})
    return frozenset({"operate", "ingest"}) if _SUBMITS.fullmatch(path) else frozenset({"operate"})


class Guard:
    """Lets a request through to the app, or answers it with the problem."""

    def __init__(self, app: App, settings: ApiSettings, local_name: str) -> None:
        self._app = app
        self._settings = settings
        self._local = Caller(local_name, EVERYTHING)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused: Problem | None = None
        try:
            scope.setdefault("state", {})["caller"] = self._admitted(scope)
            receive = _Body(receive, Headers(scope=scope), self._settings).receive
        except Problem as problem:
            refused = problem
        guarded = _with_headers(send)
        if refused is None:
            await self._app(scope, receive, guarded)
        elif _is_page(scope) and refused.status == 401:
            await _to_login(scope, guarded)
        else:
            await refused.response()(scope, receive, guarded)

    def _admitted(self, scope: MutableMapping[str, Any]) -> Caller:
        headers, method = Headers(scope=scope), scope["method"]
        path = _path_within(scope)
        self._check_host(headers)
        if method not in SAFE:
            _check_origin(headers)
        caller = self._caller(headers)
        needed = scope_needed(method, path)
        if needed is None:
            return caller or Caller("nobody", frozenset())
        if caller is None:
            raise Problem(
                401,
                "unauthenticated",
                "a token is needed",
                hint="send Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="steplog"'},
            )
        if self._settings.read_only and method not in SAFE and path != "/logout":
            raise Problem(403, "read-only", "this server was started read-only")
        if needed.isdisjoint(caller.scopes):
            raise Problem(
                403,
                "scope-missing",
                f"token {caller.name} may not do that: it needs the scope {' or '.join(sorted(needed))}",
                needed=sorted(needed),
            )
        return caller

    def _caller(self, headers: Headers) -> Caller | None:
        """Whose token it is. One that is sent and wrong lets nobody in, also where none would be needed."""
        tokens = self._settings.tokens
        kind, _, secret = headers.get("authorization", "").partition(" ")
        found: Token | None = None
        if secret:
            found = token_of_secret(tokens, secret.strip()) if kind.lower() == "bearer" else None
        elif not tokens:
            return self._local
        elif cookie := _cookie(headers):
            found = token_of_cookie(tokens, cookie, time.time())
        return Caller(found.name, found.scopes, found) if found else None

    def _check_host(self, headers: Headers) -> None:
        """A page elsewhere whose name was turned to this address gets nothing."""
        name = _host_name(headers.get("host", ""))
        if name in LOOPBACK_NAMES or name in self._settings.hosts:
            return
        if not self._settings.tokens or self._settings.hosts:
            raise Problem(
                421, "unknown-host", f"no server called {name[:100]!r} is here", hint="name it with --allow-host"
            )


def _check_origin(headers: Headers) -> None:
    """What changes something comes from our own pages, or from no page at all."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise Problem(403, "cross-site", "another site's page may not do that")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Problem(403, "cross-site", "another site's page may not do that")


class _Body:
    """The request's body as it comes in: bounded in bytes and time, never compressed."""

    def __init__(self, receive: Receive, headers: Headers, settings: ApiSettings) -> None:
        self._receive = receive
        self._settings = settings
        self._taken = 0
        self._whole = False
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "compressed-body", "a compressed body is not read", hint="send it as it is")
        length = headers.get("content-length", "0")
        if length.isdigit() and len(length) < 20 and int(length) > settings.body_bytes_max:
            self._refuse()

    async def receive(self) -> Message:
        if self._whole:  # what comes now is the client going away, which streams wait for
            return await self._receive()
        try:
            async with asyncio.timeout(self._settings.body_seconds_max):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "slow-body", "the body did not come in time", headers={"Connection": "close"}) from None
        self._taken += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._taken > self._settings.body_bytes_max:
            self._refuse()
        return message

    def _refuse(self) -> None:
        most = self._settings.body_bytes_max
        raise Problem(
            413, "body-too-large", f"a body has at most {most} bytes", headers={"Connection": "close"}, most=most
        )


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


async def _to_login(scope: MutableMapping[str, Any], send: Send) -> None:
    location = f"{scope.get('root_path', '')}/login".encode()
    await send({"type": "http.response.start", "status": 303, "headers": [(b"location", location)]})
    await send({"type": "http.response.body", "body": b""})


def _is_page(scope: MutableMapping[str, Any]) -> bool:
    """Whether a person's browser asks for something to look at."""
    shown = "text/html" in Headers(scope=scope).get("accept", "")
    return shown and scope["method"] in SAFE and not _path_within(scope).startswith("/api/")


def _path_within(scope: MutableMapping[str, Any]) -> str:
    """The path behind whatever the app is mounted at."""
    root, path = str(scope.get("root_path", "")), str(scope["path"])
    return path[len(root) :] if root and path.startswith(root) else path


def _cookie(headers: Headers) -> str | None:
    try:
        jar = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return None
    return jar[COOKIE].value if COOKIE in jar else None


def _host_name(host: str) -> str:
    """The name of `name`, `name:port` and `[::1]:port`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
