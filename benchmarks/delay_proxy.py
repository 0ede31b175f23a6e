"""A TCP proxy in a process of its own that delays everything by half a round trip each way.

Usage: delay_proxy.py UPSTREAM_SOCKET ROUND_TRIP_S; it prints the port it listens on and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
from collections import deque


class Side(asyncio.Protocol):
    """One end of a connection; what it receives is sent by the other one later."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self.waiting: deque[bytes | None] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._later(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(None)

    def _later(self, data: bytes | None) -> None:
        self.waiting.append(data)
        asyncio.get_running_loop().call_later(self.delay_s, self._pass_on)

    def _pass_on(self) -> None:
        data = self.waiting.popleft()
        if self.other is None or self.other.transport is None:
            return
        if data is None:
            self.other.transport.close()
        else:
            self.other.transport.write(data)


class Near(Side):
    """The client's end: it opens the far one before it lets anything be read."""

    def __init__(self, delay_s: float, upstream: str) -> None:
        super().__init__(delay_s)
        self.upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self.opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        _, far = await loop.create_unix_connection(lambda: Side(self.delay_s), self.upstream)
        far.other, self.other = self, far
        assert self.transport is not None
        self.transport.resume_reading()


async def serve(upstream: str, round_trip_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(round_trip_s / 2, upstream), "127.0.0.1", 0, family=socket.AF_INET)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    # epoll waits whole milliseconds; select is exact enough for less.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(sys.argv[1], float(sys.argv[2])))
