"""A rebuild in a process of its own, a few jobs at a time, that says so after each stretch: to be killed."""

from __future__ import annotations

import sys

from steplog.eventstore.connect import open_store
from steplog.eventstore.postgres import PostgresStore
from steplog.projections import following
from steplog.projections.runner import own_projections, rebuild


def main(address: str, schema: str) -> None:
    following.STRETCH_JOBS = 2
    following.STRETCH_ENTRIES = 6
    store = PostgresStore(address, schema=schema) if schema else open_store(address)
    for projection in own_projections():
        for built in rebuild(store, projection):
            sys.stdout.write(f"{built.projection} {built.jobs}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
