"""`make fuzz`: schemathesis sends what the API's own description allows, and what it does not, to a server of its own.

No answer may be a 5xx, and each must be what the description says. Arguments go on to schemathesis.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from api_world import World
from browser import serving

from steplog.eventstore.sqlite import SQLiteStore

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main(schemathesis: str, *options: str) -> int:
    """The exit code of schemathesis. Streams are left out, for they do not end, and long polls are cut short."""
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder) / "steplog.db")
        world = World(store, wait_s_max=0.05)
        for key in ("one", "two"):
            world.job(key=key)
        world.job(broken=False)
        with serving(world.app) as address:
            command = [
                schemathesis, "run", f"{address}/openapi.json", "--checks", CHECKS, "--exclude-path-regex", "/stream$",
                "--request-timeout", "20", "--phases", "examples,coverage,fuzzing", *options,
            ]  # fmt: skip
            code = subprocess.run(command, check=False).returncode
        store.close()
        return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
