"""A crowd on one server: a thousand streams, a tenth of which nobody reads, over real sockets to another process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from log_builder import LogBuilder
from source_tree import ROOT

from steplog.eventstore.clock import SystemClock
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Claim, Code, Store

CLIENTS, STALLED = 1000, 100
BATCHES_MAX = 16
EVENTS = 120
LARGE_BYTES = 100_000
"""Of the events that those who stall are sent: together more than what lies between two sockets."""
WAIT_S = 240.0
GROWN_KB_MAX = 100_000
"""What it may cost the server that events come: pages that are kept, a buffer for each client, and what was given back
but not to the system."""


class Server(NamedTuple):
    host: str
    port: int
    process: subprocess.Popen[str]

    def rss_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@contextmanager
def serving(store: SQLiteStore) -> Iterator[Server]:
    command = [sys.executable, str(ROOT / "tests" / "crowd_server.py"), store.url, str(BATCHES_MAX)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    with process.stdout:
        address = urlsplit(process.stdout.readline().strip())
        try:
            yield Server(str(address.hostname), address.port or 0, process)
        finally:
            process.terminate()
            process.wait(30)


class Client:
    """One stream of a job: what it has read, message by message."""

    def __init__(self, server: Server, job_id: str) -> None:
        self._server = server
        self._job_id = job_id
        self.versions: list[int] = []
        self.is_dropped = False
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None

    async def connect(self, after: int) -> None:
        """Ask for what comes behind that version, and wait until the stream has begun."""
        pair = socket.socket()
        pair.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        pair.setblocking(False)
        await asyncio.get_running_loop().sock_connect(pair, (self._server.host, self._server.port))
        self._reader, self._writer = await asyncio.open_connection(sock=pair, limit=4 * LARGE_BYTES)
        path = f"/api/v1/jobs/{self._job_id}/events/stream?after={after}"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert b" 200 " in await self._reader.readline()
        while b"retry:" not in await self._reader.readline():
            pass

    async def read_to(self, version: int) -> None:
        """Read until that version has come, or the server lets this client go."""
        assert self._reader is not None
        while (not self.versions or self.versions[-1] < version) and not self.is_dropped:
            line = await self._reader.readline()
            if line.startswith(b"id: "):
                self.versions.append(int(line[4:]))
            assert line, "the stream broke off"
            self.is_dropped = line.startswith(b"event: dropped")

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()


class Job:
    """A job that its owner appends to."""

    def __init__(self, store: Store, build: LogBuilder) -> None:
        self._store, self._build = store, build
        worker = build.worker()
        store.register_worker(worker, 600.0)
        self.job_id = store.create(build.job())
        self.claim: Claim = store.claim(
            self.job_id, worker.worker_id, store.head(self.job_id).position, build.claiming()
        )
        self.begun = store.head(self.job_id).version

    def append(self, value: object) -> None:
        position = self._store.head(self.job_id).position
        (answer,) = self._store.append([self._build.append(self.job_id, position, self.claim, value)])
        assert answer.code is Code.STORED

    @property
    def version(self) -> int:
        return self._store.head(self.job_id).version


@pytest.mark.heavy
def test_a_thousand_clients_of_which_a_tenth_stall(
    sqlite_store: SQLiteStore, record_property: Callable[[str, object], None]
) -> None:
    build = LogBuilder(SystemClock())
    small, large = Job(sqlite_store, build), Job(sqlite_store, build)

    async def scenario(server: Server) -> int:
        live = [Client(server, small.job_id) for _ in range(CLIENTS - STALLED)]
        stalled = [Client(server, large.job_id) for _ in range(STALLED)]
        for client, job in [*((each, small) for each in live), *((each, large) for each in stalled)]:
            await client.connect(job.begun)
        before_kb = server.rss_kb()
        first, *others = live
        readers = [asyncio.create_task(client.read_to(small.begun + EVENTS)) for client in others]
        for number in range(EVENTS):
            await asyncio.to_thread(large.append, "x" * LARGE_BYTES)
            await asyncio.to_thread(small.append, number)
            await first.read_to(small.version)  # so that each event comes in a batch of its own
        await asyncio.gather(*readers)
        grown_kb = server.rss_kb() - before_kb

        assert (small.version, large.version) == (small.begun + EVENTS, large.begun + EVENTS)
        wanted = list(range(small.begun + 1, small.begun + EVENTS + 1))
        assert [client.versions == wanted for client in live] == [True] * len(live)
        for client in stalled:
            await client.read_to(large.version)
            await client.close()
            last = client.versions[-1]
            again = Client(server, large.job_id)
            await again.connect(last)
            if last < large.version:
                await again.read_to(large.version)
            assert [*client.versions, *again.versions] == list(range(large.begun + 1, large.version + 1))
            await again.close()
        assert any(client.is_dropped for client in stalled)
        for client in live:
            await client.close()
        return grown_kb

    with serving(sqlite_store) as server:
        grown_kb = asyncio.run(asyncio.wait_for(scenario(server), WAIT_S))
    record_property("grown_kb", grown_kb)
    assert grown_kb < GROWN_KB_MAX


def test_streams_are_let_go_when_the_server_ends(sqlite_store: SQLiteStore) -> None:
    job = Job(sqlite_store, LogBuilder(SystemClock()))

    async def scenario(server: Server) -> None:
        client = Client(server, job.job_id)
        await client.connect(0)
        await client.read_to(job.version)
        server.process.terminate()
        await client.read_to(job.version + 1)
        assert client.is_dropped
        await client.close()

    with serving(sqlite_store) as server:
        asyncio.run(asyncio.wait_for(scenario(server), WAIT_S))
