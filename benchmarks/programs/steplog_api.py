"""steplog: the status API of a server of its own, asked for one job, and watched by viewers while events come.

A viewer does what a page does: it holds a stream, and fetches the page a moment after it was told of something. Where
Chromium and its driver are here one more viewer is a browser, which says when the event stood in its document.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import quantiles
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from program import Measured, Stopwatch, Work, main
from steplog_jobs import chain
from steplog_stores import durability_of, opened

from steplog.engine import operators
from steplog.engine.submitting import submit
from steplog.eventstore.store import Store

APART_S = 0.5
"""Between two events that viewers are told of."""
QUIET_S = 0.12
"""How long a page waits before it fetches itself, for more to come: dashboard.js."""
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,900")
OBSERVE = """
window.seen = {};
const look = () => {
  const version = document.getElementById("live")?.dataset.version;
  if (version && !(version in window.seen)) window.seen[version] = Date.now();
};
new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
"""


def measure(work: Work) -> Measured:
    with opened(work.store) as store, serving(work.store) as address:
        server = urlsplit(address)
        place = Place(str(server.hostname), server.port or 0)
        job_id = submit(chain(work.steps), store=store)
        if work.what == "viewers":
            return _watched(work, store, place, job_id)
        known = {"If-None-Match": f'"v{store.head(job_id).version}"'} if work.what == "unchanged requests" else {}
        asked = _request(f"/api/v1/jobs/{job_id}", known)
        asyncio.run(_ask(place, asked, 50, 1))
        watch = Stopwatch()
        with watch.running():
            took_s = asyncio.run(_ask(place, asked, work.events, work.at_once))
        return Measured(len(took_s), watch.seconds, durability_of(store), _percentiles("", took_s), warm_up=50)


class Place(NamedTuple):
    host: str
    port: int


@contextmanager
def serving(url: str) -> Iterator[str]:
    """The address of a server in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, "serve", url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(30)


# --- requests --------------------------------------------------------------------------------------------------------


async def _ask(place: Place, request: bytes, times: int, at_once: int) -> list[float]:
    """Seconds that each of so many requests took, over so many connections."""
    left, took_s = iter(range(times)), list[float]()

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection(*place)
        for _ in left:
            began = time.perf_counter()
            writer.write(request)
            await _answer(reader)
            took_s.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one_connection() for _ in range(at_once)))
    return took_s


def _request(path: str, headers: dict[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The answer's body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    if head.split()[1] not in ("200", "304"):
        raise RuntimeError(head.splitlines()[0])
    length = next((int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length")), 0)
    return await reader.readexactly(length)


# --- viewers ---------------------------------------------------------------------------------------------------------


def _watched(work: Work, store: Store, place: Place, job_id: str) -> Measured:
    watch = Stopwatch()
    with _browser(place, job_id) as shown, watch.running():
        told_s, fetched_s, drawn_s, per_s = asyncio.run(_view(work, store, place, job_id, shown))
    notes = {"statements_per_s": per_s, **_percentiles("told_", told_s), **_percentiles("page_", fetched_s)}
    return Measured(work.events, watch.seconds, durability_of(store), notes | _percentiles("dom_", drawn_s))


async def _view(
    work: Work, store: Store, place: Place, job_id: str, shown: Callable[[], dict[str, float]]
) -> tuple[list[float], list[float], list[float], float]:
    """Seconds from each commit to each stream, to each viewer's page and to the browser; statements a second."""
    committed: dict[int, float] = {}
    told: list[tuple[int, float]] = []
    fetched: list[tuple[int, float]] = []
    begun = asyncio.Semaphore(0)
    last = store.head(job_id).version + work.events

    async def viewer() -> None:
        reader, writer = await asyncio.open_connection(*place)
        page_reader, page_writer = await asyncio.open_connection(*place)
        writer.write(_request(f"/api/v1/jobs/{job_id}/events/stream", {}))
        await reader.readuntil(b"retry:")
        begun.release()
        version = 0
        while version < last:
            line = await reader.readuntil(b"\n")
            if line.startswith(b"id: "):
                version = int(line[4:])
                told.append((version, time.time()))
                await asyncio.sleep(QUIET_S)
                page_writer.write(_request(f"/jobs/{job_id}?seen={version}", {"Accept": "text/html"}))
                await _answer(page_reader)
                fetched.append((version, time.time()))
        writer.close()
        page_writer.close()

    viewers = [asyncio.create_task(viewer()) for _ in range(work.at_once)]
    for _ in viewers:
        await begun.acquire()
    await asyncio.sleep(APART_S)
    before, began = await _statements(place), time.perf_counter()
    for number in range(work.events):
        await asyncio.to_thread(operators.signal, store, job_id, f"s{number}", by="bench")
        committed[store.head(job_id).version] = time.time()
        await asyncio.sleep(APART_S)
    per_s = (await _statements(place) - before) / (time.perf_counter() - began)
    await asyncio.gather(*viewers)
    drawn = [(int(version), at_ms / 1000) for version, at_ms in (await asyncio.to_thread(shown)).items()]
    return _since(committed, told), _since(committed, fetched), _since(committed, drawn), per_s


def _since(committed: dict[int, float], seen: list[tuple[int, float]]) -> list[float]:
    return [at - committed[version] for version, at in seen if version in committed]


async def _statements(place: Place) -> int:
    reader, writer = await asyncio.open_connection(*place)
    writer.write(_request("/statements", {}))
    found = int(await _answer(reader))
    writer.close()
    return found


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{name}p50_ms": cuts[49] * 1000, f"{name}p99_ms": cuts[98] * 1000}


@contextmanager
def _browser(place: Place, job_id: str) -> Iterator[Callable[[], dict[str, float]]]:
    """When each version stood in a browser's document, in milliseconds of the clock; never where none is installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        yield dict
        return
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(prefix="steplog-bench-browser-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            browser.get(f"http://{place.host}:{place.port}/jobs/{job_id}")
            browser.execute_script(OBSERVE)
            yield lambda: browser.execute_script("return window.seen")
        finally:
            browser.quit()


# --- the server ------------------------------------------------------------------------------------------------------


def serve(url: str) -> None:
    """The API on a free port of loopback, which also tells how many statements it has sent to its store."""
    import psycopg

    from steplog.api.app import create_app
    from steplog.api.server import serve as serve_app
    from steplog.api.settings import ApiSettings
    from steplog.eventstore.sqlite_connections import Connections

    sent = 0
    execute, open_one = psycopg.Cursor.execute, Connections._open

    def count(statement: Any) -> None:
        nonlocal sent
        sent += not str(statement).startswith("PRAGMA")

    def executed(cursor: Any, query: Any, *args: Any, **how: Any) -> Any:
        count(query)
        return execute(cursor, query, *args, **how)

    def opened_one(*args: Any) -> Any:
        connection = open_one(*args)
        connection.set_trace_callback(count)
        return connection

    def say(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()

    psycopg.Cursor.execute = executed  # type: ignore[method-assign, assignment]
    Connections._open = opened_one  # type: ignore[method-assign, assignment]
    app = create_app(url, ApiSettings())
    app.add_api_route("/statements", lambda: sent)
    serve_app(app, "127.0.0.1", 0, started=say)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        main(measure)
