"""The HTTP side of the registration: posts with idempotency keys, and the secret that goes with them.

Where no address is given it talks to the local service of the work folder, which it starts if none is running there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from pydantic import SecretStr

from steplog.examples.registration.places import (
    JOB_HEADER,
    KEY_HEADER,
    SIMULATE_HEADER,
    address_file,
    error_log,
)

REQUEST_TIMEOUT_S = 300.0
HEALTH_TIMEOUT_S = 2.0
START_TIMEOUT_S = 20.0
POLL_S = 0.02

_starting = threading.Lock()
"""The threads of one process start at most one service; the service's own lock keeps other processes out."""


class RequestFailed(Exception):
    """The service answered with an error, or not at all."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} failed: {why}")


@dataclass(frozen=True, slots=True)
class AuthContext:
    """Who we are to the service. A secret: needed to run, never written down."""

    token: SecretStr
    organisation: str


def auth_context() -> AuthContext:
    """The credentials from the environment; the local service takes any."""
    return AuthContext(
        token=SecretStr(os.environ.get("REGISTRATION_TOKEN", "local")),
        organisation=os.environ.get("REGISTRATION_ORGANISATION", "local"),
    )


@dataclass(frozen=True, slots=True)
class Api:
    """The registration service as a sub-step uses it."""

    auth: AuthContext

    def post(self, url: str, name: str, body: dict[str, Any], *, key: str, job_id: str, simulate: str = "") -> str:
        """Ask the service for the work of that sub-step; the reference it answers with. Raises RequestFailed."""
        request = Request(f"{url}/{name}", data=json.dumps(body, sort_keys=True).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {self.auth.token.get_secret_value()}")
        request.add_header("Organisation", self.auth.organisation)
        request.add_header(KEY_HEADER, key)
        request.add_header(JOB_HEADER, job_id)
        if simulate:
            request.add_header(SIMULATE_HEADER, simulate)
        return str(_answer(name, request, REQUEST_TIMEOUT_S)["reference"])


def registration_api() -> Api:
    """Opened for each attempt, so that a changed credential counts from the next one on."""
    return Api(auth_context())


def local_service(folder: Path) -> str:
    """The address of the folder's own service, which is started if it is not running."""
    with _starting:
        url = running_service(folder)
        if url is not None:
            return url
        service = start_service(folder)
        threading.Thread(target=service.wait, name="registration service", daemon=True).start()
        return wait_for_service(folder)


def running_service(folder: Path) -> str | None:
    """The address of the folder's service if that very one answers there."""
    try:
        address = json.loads(address_file(folder).read_text(encoding="utf-8"))
        url = f"http://127.0.0.1:{address['port']}"
        health = _answer("health", Request(f"{url}/health"), HEALTH_TIMEOUT_S)
    except (OSError, ValueError, RequestFailed):
        return None
    return url if health.get("instance") == address["instance"] else None


def start_service(folder: Path) -> subprocess.Popen[bytes]:
    """Start the folder's service in a session of its own: it outlives this process and serves the next one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "steplog.examples.registration.service", "--folder", str(folder.absolute())]
    with error_log(folder).open("ab") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            start_new_session=True,
        )


def wait_for_service(folder: Path) -> str:
    """The address of the folder's service once it answers. Raises RequestFailed where it does not come up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        url = running_service(folder)
        if url is not None:
            return url
        time.sleep(POLL_S)
    raise RequestFailed("local service", f"did not come up within {START_TIMEOUT_S:g} s (see {error_log(folder)})")


def _answer(name: str, request: Request, timeout_s: float) -> dict[str, Any]:
    local = request.host.partition(":")[0] in ("127.0.0.1", "localhost")
    opener = build_opener(ProxyHandler({})) if local else build_opener()
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return dict(json.load(response))
    except HTTPError as error:
        with error:
            raise RequestFailed(name, str(error.code)) from None
    except (OSError, HTTPException, ValueError) as error:
        raise RequestFailed(name, f"{type(error).__name__}: {error}") from error
