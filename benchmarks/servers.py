"""The servers of a benchmark: its own PostgreSQL, Restate's, and a proxy that stands for the network. Loopback only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from postgres_cluster import Cluster, start
from psycopg import sql

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
START_S_MAX = 60.0
_PROXY = Path(__file__).with_name("delay_proxy.py")


class Postgres:
    """A cluster whose every run gets a database of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._numbers = count(1)

    @property
    def socket_path(self) -> str:
        return str(self._cluster.folder / ".s.PGSQL.5432")

    def version(self) -> str:
        with self._connect() as connection:
            return str(connection.execute("show server_version").fetchall()[0][0])

    @contextmanager
    def database(self, proxy_port: int | None = None) -> Iterator[str]:
        """The URL of a new database, directly or through the proxy."""
        name = f"run_{next(self._numbers)}"
        with self._connect() as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            connection.execute("checkpoint")
        try:
            if proxy_port is None:
                yield f"postgresql://steplog@/{name}?host={self._cluster.folder}"
            else:
                yield f"postgresql://steplog@127.0.0.1:{proxy_port}/{name}?sslmode=disable"
        finally:
            with self._connect() as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def flushes(self) -> int:
        """How often the server has flushed its log to disk."""
        with self._connect() as connection:
            flushed: int = connection.execute("select wal_sync from pg_stat_wal").fetchall()[0][0]
            return flushed

    def refuse_if_not_durable(self) -> None:
        with self._connect() as connection:
            for name, wanted in DURABLE.items():
                found = connection.execute(f"show {name}".encode()).fetchall()[0][0]
                if found != wanted:
                    raise RuntimeError(f"the server has {name} = {found} (expected {wanted})")

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self._cluster.dsn, autocommit=True)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A fresh cluster, with every durable setting on. Raises NoPostgres."""
    cluster = start()
    try:
        server = Postgres(cluster)
        server.refuse_if_not_durable()
        yield server
    finally:
        cluster.stop()


@contextmanager
def delaying_proxy(server: Postgres, round_trip_s: float) -> Iterator[int]:
    """The port of a proxy that makes each round trip take that much longer."""
    command = [sys.executable, str(_PROXY), server.socket_path, str(round_trip_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(START_S_MAX)


@contextmanager
def restate(binary: Path) -> Iterator[str]:
    """Restate's server on loopback: the addresses where it is called and administered."""
    ingress, admin, node = (_free_port() for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="steplog-bench-restate-", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ,
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
        }
        with (Path(folder) / "log").open("w") as log:
            command = [str(binary), "--no-logo", "--base-dir", f"{folder}/data"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _await_healthy(f"http://127.0.0.1:{admin}/health", process)
            yield f"http://127.0.0.1:{ingress} http://127.0.0.1:{admin}"
        finally:
            process.terminate()
            process.wait(START_S_MAX)


def _await_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S_MAX
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), direct.open(url, timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError("Restate's server did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
