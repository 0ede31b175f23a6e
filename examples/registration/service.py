"""A small HTTP service as the registration's sub-steps need one: a process of its own that honours idempotency keys.

`python -m steplog.examples.registration.service --folder DIR`. Every request is on disk before the service looks
whether it knows the key, so what it was asked can be counted from outside. It ends by itself when nobody asks.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from steplog.examples.registration.places import (
    JOB_HEADER,
    KEY_HEADER,
    REPLAYED_HEADER,
    SIMULATE_HEADER,
    address_file,
    lock_file,
    request_log,
    response_log,
)

BODY_BYTES_MAX = 8 << 20
IDLE_S = 60.0
_SIMULATE = re.compile(r"(?P<status>[45]\d\d)(?: x(?P<times>\d+))?")

Json = dict[str, Any]


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: Json
    replayed: bool = False


class Ledger:
    """What the service was asked and what it did, each on disk before anybody hears of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(request_log(folder))
        _drop_torn_line(response_log(folder))
        self._folder = folder
        self._lock = threading.Lock()
        self._asked: dict[str, int] = {}
        for line in read_lines(request_log(folder)):
            self._asked[line["key"]] = self._asked.get(line["key"], 0) + 1
        self._answers: dict[str, Json] = {line["key"]: line for line in read_lines(response_log(folder))}

    def post(self, path: str, key: str, job_id: str, body: bytes, simulate: str = "") -> Reply:
        """Do what is asked, once for each key; the same key again gets the same answer.

        `simulate` is a status to fail with instead, `503 x1` only for the first request of the key.
        """
        fingerprint = hashlib.sha256(path.encode() + b"\0" + body).hexdigest()
        with self._lock:
            _append(request_log(self._folder), {"at": _now(), "path": path, "key": key, "job_id": job_id})
            asked = self._asked[key] = self._asked.get(key, 0) + 1
            known = self._answers.get(key)
            if known:
                return _replay(known, fingerprint)
            failure = _SIMULATE.fullmatch(simulate)
            if failure and asked <= int(failure["times"] or asked):
                return Reply(int(failure["status"]), {"error": "failed on purpose, as the request asked"})
            return Reply(201, self._perform(path, key, job_id, fingerprint))

    def _perform(self, path: str, key: str, job_id: str, fingerprint: str) -> Json:
        answer = {"reference": f"{path.strip('/')}-{len(self._answers) + 1:04d}"}
        line = {"at": _now(), "path": path, "key": key, "job_id": job_id, "request": fingerprint, "answer": answer}
        _append(response_log(self._folder), line)
        self._answers[key] = line
        return answer


class Service(ThreadingHTTPServer):
    """The ledger behind HTTP, on loopback."""

    daemon_threads = True
    timeout = 0.5

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.ledger = Ledger(folder)
        self.folder = folder
        self.instance = os.urandom(8).hex()
        self.asked_at = time.monotonic()

    def serve_until_idle(self, idle_s: float) -> None:
        """Answer requests until there was none for that long."""
        while time.monotonic() - self.asked_at < idle_s:
            self.handle_request()


class _Handler(BaseHTTPRequestHandler):
    timeout = 30

    @property
    def service(self) -> Service:
        assert isinstance(self.server, Service)
        return self.server

    def do_GET(self) -> None:
        """`/health`: which service this is."""
        self.service.asked_at = time.monotonic()
        known = self.path == "/health"
        self._send(Reply(200, {"instance": self.service.instance}) if known else Reply(404, {"error": "no such page"}))

    def do_POST(self) -> None:
        """Any path: the work of the sub-step it is named for."""
        self.service.asked_at = time.monotonic()
        key = self.headers.get(KEY_HEADER, "")
        length = int(self.headers.get("Content-Length", "0"))
        if not key:
            self._send(Reply(400, {"error": f"no {KEY_HEADER}"}))
        elif length > BODY_BYTES_MAX:
            self._send(Reply(413, {"error": f"more than {BODY_BYTES_MAX} bytes"}))
        elif not self.headers.get("Authorization", "").startswith("Bearer "):
            self._send(Reply(401, {"error": "no bearer token"}))
        else:
            body = self.rfile.read(length)
            headers = self.headers
            simulate, job_id = headers.get(SIMULATE_HEADER, ""), headers.get(JOB_HEADER, "")
            self._send(self.service.ledger.post(self.path, key, job_id, body, simulate))

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the request log says it all."""

    def _send(self, reply: Reply) -> None:
        encoded = json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        if reply.replayed:
            self.send_header(REPLAYED_HEADER, "true")
        self.end_headers()
        self.wfile.write(encoded)


def read_lines(path: Path) -> list[Json]:
    """The JSON lines of a log; a last line that was cut off while being written is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def run_service(folder: Path, port: int, idle_s: float) -> bool:
    """Serve until idle. False if this folder has its service already."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with Service(folder, port) as service:
            _announce(service)
            service.serve_until_idle(idle_s)
    return True


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m steplog.examples.registration.service", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where it keeps what it was asked and what it did")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; address.json says which")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds without a request after which it ends")
    given = parser.parse_args(arguments)
    if not run_service(given.folder, given.port, given.idle):
        parser.exit(3, f"{given.folder} has a running service already\n")


def _replay(known: Json, fingerprint: str) -> Reply:
    if known["request"] != fingerprint:
        return Reply(422, {"error": "this key was used for another request"})
    return Reply(201, known["answer"], replayed=True)


def _announce(service: Service) -> None:
    address = {"port": service.server_port, "pid": os.getpid(), "instance": service.instance}
    part = address_file(service.folder).with_suffix(".part")
    part.write_text(json.dumps(address), encoding="utf-8")
    os.replace(part, address_file(service.folder))


def _append(path: Path, line: Json) -> None:
    """One line, on disk when this returns."""
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line, sort_keys=True) + "\n")
        log.flush()
        os.fsync(log.fileno())


def _drop_torn_line(path: Path) -> None:
    """A line that was being written when the service was killed: nothing was done about it yet."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


if __name__ == "__main__":
    main()
