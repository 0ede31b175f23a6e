"""Virtual environments of the peers, made once under build/bench; what cannot be had is named with why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "build/bench"
SET_UP_S_MAX = 600
PACKAGES = {
    "DBOS": ["dbos==3.4.0"],
    "Absurd": ["absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]"],
    "Restate": ["restate-sdk==1.3.0", "hypercorn", "httpx"],
    "eventsourcing": ["eventsourcing==9.5.6", "psycopg[binary]", "psycopg_pool"],
}
RESTATE_SERVER = "@restatedev/restate-server"


class CannotBeHad(Exception):
    """A peer's packages cannot be installed here."""


@dataclass
class Environments:
    """Interpreters by contestant, and why a peer has none."""

    pythons: dict[str, str] = field(default_factory=dict)
    restate_server: Path | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def set_up(self, wanted: Collection[str]) -> None:
        """Those of the peers that can be had; ours and the limits run in the environment this runs in."""
        for name, packages in PACKAGES.items():
            if name not in wanted:
                continue
            try:
                self.pythons[name] = _environment(name, packages)
                self.versions[name] = _version(self.pythons[name], packages[0].partition("==")[0])
                if name == "Restate":
                    self.restate_server = _restate_server()
            except (CannotBeHad, OSError, subprocess.SubprocessError) as error:
                self.pythons.pop(name, None)
                self.left_out[name] = str(error)

    def python_of(self, contestant: str) -> str | None:
        """The interpreter for a contestant: a peer's own or, for who is no peer, this one."""
        return self.pythons.get(contestant) if contestant in PACKAGES else sys.executable


def _environment(name: str, packages: Sequence[str]) -> str:
    folder = FOLDER / name.lower()
    python, done = folder / "bin/python", folder / "installed"
    wanted = "\n".join(packages)
    if not (done.exists() and done.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(folder)])
        _call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        done.write_text(wanted)
    return str(python)


def _version(python: str, package: str) -> str:
    return _call([python, "-c", f"from importlib.metadata import version; print(version({package!r}))"]).strip()


def _restate_server() -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise CannotBeHad("its server comes from npm, and there is no npm")
    folder = FOLDER / "restate-server"
    binary = folder / "node_modules/.bin/restate-server"
    if not binary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _call([npm, "install", "--silent", "--ignore-scripts", "--prefix", str(folder), RESTATE_SERVER])
    if not binary.exists():
        raise CannotBeHad(f"{RESTATE_SERVER} brought no server for this machine")
    return binary


def _call(command: Sequence[str]) -> str:
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SET_UP_S_MAX, env=environment, check=False)
    if done.returncode:
        raise CannotBeHad((done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1])
    return done.stdout
