"""A real pgbouncer in transaction mode, in front of the tests' server, ended by its own pid."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from postgres_cluster import server_account
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from source_tree import ROOT

START_S_MAX = 30
FETCHED = ROOT / "build/pgbouncer"
"""Where `make test-all` unpacks Debian's package and its library, if there is none on the machine."""

_OF_SERVER = ("host", "port", "user", "password", "dbname")

_CONFIGURATION = """
[databases]
pooled = {server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 100
server_reset_query =
logfile = {folder}/log
"""


def find_pgbouncer() -> Path | None:
    """The machine's own, or the one fetched for the tests."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    fetched = FETCHED / "usr/sbin/pgbouncer"
    return Path(found) if found else fetched if fetched.exists() else None


@contextmanager
def pooled(binary: Path, dsn: str, *, pool: int) -> Iterator[str]:
    """The address of the same database through the pooler. Its folder is one that the server's account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="steplog-pooler-"))
    try:
        port = free_port()
        known = conninfo_to_dict(dsn)
        server = make_conninfo("", **{name: str(known[name]) for name in _OF_SERVER if known.get(name)})
        (folder / "pgbouncer.ini").write_text(_CONFIGURATION.format(server=server, port=port, pool=pool, folder=folder))
        process = _start(binary, folder)
        through = make_conninfo(
            dsn, host="127.0.0.1", port=port, dbname="pooled", sslmode="disable", gssencmode="disable"
        )
        try:
            _await_ready(through, process, folder / "log")
            yield through
        finally:
            process.terminate()
            process.wait(START_S_MAX)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(binary: Path, folder: Path) -> subprocess.Popen[bytes]:
    """It refuses to run as root, and the account that it runs as need not reach what was fetched: it gets copies."""
    shutil.copy(binary, folder / "pgbouncer")
    for library in FETCHED.glob("usr/lib/*/lib*.so.*"):
        shutil.copy(library, folder)
    account = server_account()
    if account:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, account)
    return subprocess.Popen(
        [str(folder / "pgbouncer"), str(folder / "pgbouncer.ini")],
        cwd=folder,
        user=account,
        group=pwd.getpwnam(account).pw_gid if account else None,
        extra_groups=[] if account else None,
        env={"LD_LIBRARY_PATH": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(dsn: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text()[-2000:] if log.exists() else ""
                raise RuntimeError(f"the pooler did not start: {error}\n{said}") from error
            time.sleep(0.02)
        else:
            return
