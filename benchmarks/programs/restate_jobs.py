"""Restate: the same steps as `ctx.run` of a service handler, called over HTTP; its server runs beside."""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from uuid import uuid4

import httpx
import hypercorn
import hypercorn.asyncio
import restate
from program import Measured, Stopwatch, Work, at_once, main

CALL_S_MAX = 300.0


def service_named(name: str) -> restate.Service:
    service = restate.Service(name)

    @service.handler("chain")
    async def chain(ctx: restate.Context, steps: int) -> int:
        for number in range(steps):
            await ctx.run_typed(f"s{number}", nothing)
        return steps

    return service


async def nothing() -> None:
    pass


def measure(work: Work) -> Measured:
    return asyncio.run(measured(work))


async def measured(work: Work) -> Measured:
    """`work.store` is `http://INGRESS http://ADMIN`."""
    ingress, admin = work.store.split()
    name, port, stop = f"chain-{uuid4().hex[:8]}", free_port(), asyncio.Event()
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.h2_max_concurrent_streams = 2_147_483_647
    app: Any = restate.app(services=[service_named(name)])
    serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
    watch = Stopwatch()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=CALL_S_MAX, limits=limits, trust_env=False) as http:
        (await http.post(f"{admin}/deployments", json={"uri": f"http://127.0.0.1:{port}"})).raise_for_status()
        await call(http, f"{ingress}/{name}/chain", work.steps)
        with watch.running():
            await at_once(lambda: call(http, f"{ingress}/{name}/chain", work.steps), work)
    stop.set()
    await serving
    return Measured(work.jobs * work.steps, watch.seconds, {"its own log": "default settings"})


async def call(http: httpx.AsyncClient, url: str, steps: int) -> None:
    answer = await http.post(url, json=steps)
    answer.raise_for_status()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(measure)
