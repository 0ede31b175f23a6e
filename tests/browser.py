"""A real browser for tests of the pages: Debian's Chromium, headless, and a server on loopback for it to look at."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from source_tree import ROOT

AXE = ROOT / "build" / "axe" / "package" / "axe.min.js"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,900",
)  # fmt: skip


def find_browser() -> tuple[str, str]:
    """Chromium and its driver; the test is skipped, and says so, where they are not installed."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found):
        pytest.skip("no Chromium with its driver: `make browser` installs them")
    return str(found[0]), str(found[1])


def find_axe() -> str:
    """The source of axe, which finds what keeps people out; skipped, and said, where it is not there."""
    if not AXE.is_file():
        pytest.skip("no axe: `make browser` fetches it")
    return AXE.read_text(encoding="utf-8")


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address at which the app is served by a thread."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def browsing(profile: Path) -> Iterator[Any]:
    """A browser with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    binary, driver = find_browser()
    options = Options()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver, env={**os.environ, "HOME": str(profile)}))
    try:
        yield browser
    finally:
        browser.quit()
