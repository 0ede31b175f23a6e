"""DBOS: the same steps as a workflow of async steps, on PostgreSQL or SQLite, started from one process."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig
from dbos._dbos import _get_dbos_instance  # its connection, to read the settings back from
from program import Measured, Stopwatch, Work, at_once, main, settings_of_postgres, settings_of_sqlite


@DBOS.step()
async def nothing() -> None:
    pass


@DBOS.workflow()
async def chain(steps: int) -> None:
    for _ in range(steps):
        await nothing()


def measure(work: Work) -> Measured:
    config: DBOSConfig = {
        "name": "steps",
        "system_database_url": work.store,
        "log_level": "ERROR",
        "application_version": "1",
    }
    DBOS(config=config)
    DBOS.launch()
    watch = Stopwatch()
    asyncio.run(measured(work, watch))
    settings = settings_of(_get_dbos_instance()._sys_db.engine)
    return Measured(work.jobs * work.steps, watch.seconds, settings, warm_up=work.steps)


async def measured(work: Work, watch: Stopwatch) -> None:
    await chain(work.steps)
    with watch.running():
        await at_once(lambda: chain(work.steps), work)


def settings_of(engine: Any) -> dict[str, str]:
    with engine.connect() as connection:

        def ask(text: str) -> object:
            return connection.execute(sa.text(text)).scalar()

        return settings_of_sqlite(ask) if engine.dialect.name == "sqlite" else settings_of_postgres(ask)


if __name__ == "__main__":
    main(measure)
    sys.stdout.flush()
    os._exit(0)  # its threads may take seconds to end
