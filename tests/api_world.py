"""A server in this process for tests of the API: a store in memory, jobs of a small workflow, and who asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field, SecretStr

from steplog import Context, Fatal, Step, Workflow
from steplog.api.app import create_app, service_for
from steplog.api.settings import ApiSettings
from steplog.api.tokens import Token, read_tokens
from steplog.engine.jobs import run_blocking
from steplog.eventstore.store import Store
from steplog.testing.memory import MemoryStore

HERE = "http://127.0.0.1:8400"
TOKENS = read_tokens("reader=read:read-secret-0123456 anna=operate:operate-secret-0123 node=ingest:ingest-secret-01234")
SECRETS = {token.name: token.secret for token in TOKENS}


class Order(BaseModel, frozen=True):
    shop: str = "corner"
    card: str = Field("4111-canary-1111", repr=False)
    broken: bool = True


class Basket(Context):
    total: int = 0
    voucher: str = Field("", repr=False)


orders = Workflow("orders", input=Order, context=Basket)
prepare = orders.phase("prepare")
deliver = orders.phase("deliver")


@prepare.sub_step
def price(step: Step[Order, Basket]) -> int:
    step.context.total = 42
    step.context.voucher = "canary-voucher"
    return 42


@prepare.sub_step(optional=True)
def greet(step: Step[Order, Basket]) -> str:
    raise Fatal(f"no letter to the holder of {step.input.card}")


@deliver.sub_step(after=[price])
def ship(step: Step[Order, Basket]) -> str:
    if step.input.broken:
        raise Fatal("the van is broken" + (f" by {step.input.card}" if step.input.shop == "leaky" else ""))
    return "shipped"


_PLAIN = ApiSettings(modules=["api_world"])


@cache
def _plain_app() -> FastAPI:
    """Making an app takes long beside asking it; what it stands on is put under it for each test."""
    return create_app(MemoryStore(), _PLAIN, "tester")


class World:
    """An app, whoever asks it, and its store."""

    def __init__(
        self, store: Store | None = None, *, tokens: Sequence[Token] = (), name: str | None = None, **settings: Any
    ) -> None:
        self.store: Store = store or MemoryStore()
        self.settings = ApiSettings(modules=["api_world"], tokens=tokens, **settings)
        if self.settings == _PLAIN:
            self.app = _plain_app()
            self.app.state.service = service_for(self.store, self.settings)
        else:
            self.app = create_app(self.store, self.settings, "tester")
        self.client = self.as_token(name)

    def as_token(self, name: str | None) -> TestClient:
        """A client that shows that token."""
        secret = SECRETS.get(name, name) if name else None
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return TestClient(
            self.app, base_url=HERE, headers=headers, raise_server_exceptions=False, follow_redirects=False
        )

    def job(self, *, key: str | None = None, **input: Any) -> str:
        """A job that has run as far as it came."""
        return run_blocking(orders, Order(**input), key=key, store=self.store).job_id


@asynccontextmanager
async def streaming(app: FastAPI, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[Stream]:
    """A request whose answer does not end, read while the body of the `with` runs."""
    stream = Stream()
    raw = [(name.lower().encode(), value.encode()) for name, value in {"host": "127.0.0.1", **(headers or {})}.items()]
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": query.encode(), "headers": raw, "root_path": "", "scheme": "http",
        "server": ("127.0.0.1", 8400), "client": ("127.0.0.1", 1), "state": {},
    }  # fmt: skip
    task = asyncio.create_task(app(scope, stream.receive, stream.send))
    try:
        yield stream
    finally:
        stream.gone.set()
        await asyncio.wait([task], timeout=60)
        task.cancel()
        await asyncio.wait([task])


class Stream:
    """The messages of one answer."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.status = 0
        self.begun = asyncio.Event()
        """Set when the answer has begun."""
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self._left = b""
        self._begun = False
        self.stalled = asyncio.Event()
        self.stalled.set()

    async def receive(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.stalled.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.begun.set()
        else:
            self._parts.put_nowait(message.get("body", b""))

    async def next(self) -> dict[str, str]:
        """The next message that says something."""
        while True:
            while b"\n\n" not in self._left:
                self._left += await asyncio.wait_for(self._parts.get(), 60)
            text, self._left = self._left.split(b"\n\n", 1)
            fields = dict(line.split(": ", 1) for line in text.decode().split("\n") if not line.startswith(":"))
            if "event" in fields:
                return fields


class Vault(BaseModel, frozen=True):
    """An input with secrets wherever a type can hold them."""

    plain: str = "plain"
    pin: SecretStr | None = None
    keys: list[str] = Field(["list-canary"], repr=False)
    inner: Order = Order(card="inner-canary")
