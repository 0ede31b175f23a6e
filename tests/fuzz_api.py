"""`make fuzz`: schemathesis sends what the API's own description allows, and what it does not, to a server of its own.

No answer may be a 5xx, and each must be what the description says. Arguments go on to schemathesis.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from api_world import World, orders
from browser import serving

from steplog.api.submitting import submit
from steplog.eventstore.sqlite import SQLiteStore

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


LIKELY = 0.8
NAMES = {"jobs": "job_id", "phases": "phase", "workflows": "name"}
"""Dictionaries of what there is, and the part of a path that each may fill."""


def main(schemathesis: str, *options: str) -> int:
    """The exit code of schemathesis. Streams are left out, for they do not end, and long polls are cut short."""
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder) / "steplog.db")
        world = World(store, wait_s_max=0.05)
        jobs = [*(world.job(key=key) for key in ("one", "two")), world.job(broken=False)]
        jobs += [submit(store, orders, {"shop": shop}).job_id for shop in ("queued", "waiting")]
        config = Path(folder) / "schemathesis.toml"
        config.write_text(_config({"jobs": jobs, "phases": ["prepare", "deliver"], "workflows": ["orders", "ship"]}))
        with serving(world.app) as address:
            command = [
                schemathesis, "--config-file", str(config), "run", f"{address}/openapi.json", "--checks", CHECKS,
                "--exclude-path-regex", "/stream$", "--request-timeout", "20", *options,
            ]  # fmt: skip
            code = subprocess.run(command, check=False).returncode
        store.close()
        return code


def _config(values: dict[str, list[str]]) -> str:
    """Most paths name what there is, so that more than the door is tried; the others name anything."""
    lines = [f"[dictionaries.{name}]\nvalues = {json.dumps(found)}" for name, found in values.items()]
    bound = [f'"path.{NAMES[name]}" = {{ dictionary = "{name}", probability = {LIKELY} }}' for name in values]
    return "\n".join([*lines, "[parameters]", *bound, ""])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
