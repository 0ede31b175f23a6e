"""A proxy between a client and PostgreSQL that knows where a message of the protocol ends, and does something to one.

It listens on loopback, in a thread of its own. Messages are counted from the moment a fault is armed, on whatever
connection is used then; the fault happens once, and everything after it passes unharmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from psycopg.conninfo import conninfo_to_dict, make_conninfo

DELAY_S = 0.05

T = TypeVar("T")
Side = Literal["client", "server"]
Action = Literal["cut", "reset", "half-close", "black hole", "delay", "drip"]
ACTIONS: tuple[Action, ...] = ("cut", "reset", "half-close", "black hole", "delay", "drip")


@dataclass(frozen=True)
class Point:
    """Before or after the message with that number, from 1, that this side sends, of that kind if one is given."""

    side: Side
    number: int
    when: Literal["before", "after"]
    kind: str | None = None


@dataclass(frozen=True)
class Message:
    side: Side
    kind: str


class _Link:
    """One client's connection and its own to the server."""

    def __init__(self, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter) -> None:
        self.to: dict[Side, asyncio.StreamWriter] = {"client": to_server, "server": to_client}
        """Where what a side sends goes."""
        self.silent = False

    def close(self) -> None:
        for writer in self.to.values():
            writer.close()

    def reset(self) -> None:
        for writer in self.to.values():
            peer = writer.get_extra_info("socket")
            if peer.family != socket.AF_UNIX:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class MessageProxy:
    """A context manager; `dsn` leads through it."""

    def __init__(self, upstream: str) -> None:
        parameters = conninfo_to_dict(upstream)
        self._host, self._port = str(parameters.get("host") or ""), int(str(parameters.get("port") or 5432))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="message-proxy", daemon=True)
        self._lock = threading.Lock()
        self._point: Point | None = None
        self._inflict: Action | Callable[[], None] = "cut"
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Message] = []
        """The messages since `arm`."""
        self.struck = threading.Event()
        self._upstream = upstream
        self.dsn = ""

    def __enter__(self) -> MessageProxy:
        self._thread.start()
        port = self._run(self._listen())
        self.dsn = make_conninfo(self._upstream, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def arm(self, point: Point | None, action: Action | Callable[[], None] = "cut") -> None:
        """Count from here, and strike at that point; a function is called there before a cut."""
        with self._lock:
            self.seen, self._point, self._inflict = [], point, action
            self.struck.clear()

    # --- connections -------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        self._server.close()
        for link in self._links:
            link.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._host.startswith("/"):
                opened = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            else:
                opened = await asyncio.open_connection(self._host, self._port)
        except OSError:
            to_client.close()
            return
        from_server, to_server = opened
        link = _Link(to_client, to_server)
        self._links.add(link)
        try:
            # A handler of asyncio's that ends as cancelled is reported as a failure.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(self._pump("client", from_client, link), self._pump("server", from_server, link))
        finally:
            link.close()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pump(self, side: Side, source: asyncio.StreamReader, link: _Link) -> None:
        """Pass on what a side sends until it ends or the link is struck."""
        to = link.to[side]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async for kind, frame in _messages(source, first_has_no_kind=side == "client"):
                when = self._when(side, kind)
                if when == "before":
                    frame = await self._strike(side, link, frame)
                if not link.silent:
                    to.write(frame)
                    await to.drain()
                if when == "after":
                    await self._strike(side, link, b"")
        if not link.silent or side == "client":
            with contextlib.suppress(OSError, RuntimeError):
                to.close()

    def _when(self, side: Side, kind: str) -> str | None:
        """Whether something happens before or after this message."""
        with self._lock:
            self.seen.append(Message(side, kind))
            point = self._point
            if point is None or point.side != side or point.kind not in (None, kind):
                return None
            if point.number != sum(seen.side == side and point.kind in (None, seen.kind) for seen in self.seen):
                return None
            self._point = None
            return point.when

    async def _strike(self, side: Side, link: _Link, frame: bytes) -> bytes:
        """Do what was asked for; what is left of the message then."""
        action = self._inflict
        if callable(action):
            action()
            link.close()
        elif action == "cut":
            link.close()
        elif action == "reset":
            link.reset()
        elif action == "half-close":
            link.to[side].write_eof()
        elif action == "black hole":
            link.silent = True
        elif action == "delay":
            await asyncio.sleep(DELAY_S)
        else:
            for position in range(len(frame)):
                link.to[side].write(frame[position : position + 1])
                await link.to[side].drain()
            frame = b""
        self.struck.set()
        if callable(action) or action in ("cut", "reset", "half-close"):
            raise ConnectionResetError
        return frame


async def _messages(source: asyncio.StreamReader, *, first_has_no_kind: bool) -> AsyncIterator[tuple[str, bytes]]:
    if first_has_no_kind:
        length = await source.readexactly(4)
        yield "start-up", length + await source.readexactly(int.from_bytes(length, "big") - 4)
    while True:
        head = await source.readexactly(5)
        yield chr(head[0]), head + await source.readexactly(int.from_bytes(head[1:], "big") - 4)
