"""The process that tests of a crowd connect to: the status API over one store, with short queues for each client."""

from __future__ import annotations

import sys

from steplog.api.app import create_app
from steplog.api.server import serve
from steplog.api.settings import ApiSettings


def say(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


def main(url: str, batches_max: str) -> None:
    """Serve on a free port of loopback, and print the address."""
    app = create_app(url, ApiSettings(client_events_max=int(batches_max), keep_alive_s=600.0))
    serve(app, "127.0.0.1", 0, started=say)


if __name__ == "__main__":
    main(*sys.argv[1:])
