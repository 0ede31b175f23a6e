"""Rows of the limits: about what a step puts into a log, without an engine that makes it."""

from __future__ import annotations

TABLE = "create table if not exists steps (job_id text not null, version bigint not null, data text not null)"
EFFECTS = "create table if not exists effects (job_id text not null, step bigint not null)"
"""What a transactional step writes to beside the log."""


def payload(number: int) -> str:
    """As long as the data of an event."""
    return f'{{"phase":"main","sub_step":"s{number}","generation":1,"attempt":1,"result":null,"pad":"{"x" * 120}"}}'
