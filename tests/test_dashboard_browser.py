"""The dashboard in a real browser: it follows, travels, obeys keys and clicks, and runs nothing that a job holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from api_world import World
from browser import browsing, find_axe, serving
from hostile_jobs import create_hostile
from xss_payloads import PAYLOADS

from steplog.engine import operators
from steplog.eventstore.sqlite import SQLiteStore

WAIT_S = 10.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    store = SQLiteStore(tmp_path_factory.mktemp("store") / "steplog.db")
    yield World(store, keep_alive_s=5.0)
    store.close()


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    with serving(world.app) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_went_wrong(browser: Any) -> Iterator[None]:
    """Neither a script's error nor a breach of the page's policy was logged."""
    browser.get_log("browser")
    yield
    assert [each for each in browser.get_log("browser") if each["level"] in ("WARNING", "SEVERE")] == []


def until(browser: Any, holds: Callable[[Any], Any]) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = WebDriverWait(browser, WAIT_S, poll_frequency=0.02, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(holds)


def text_of(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def press(browser: Any, keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(keys).perform()


def follows(browser: Any) -> bool:
    return bool(browser.execute_script("return document.documentElement.classList.contains('connected')"))


def test_a_job_is_followed_without_a_reload(world: World, address: str, browser: Any) -> None:
    job_id = world.job()
    browser.get(f"{address}/jobs/{job_id}")
    until(browser, follows)
    browser.execute_script("window.stays = 1; document.querySelector('#input').open = true")
    operators.set_context(world.store, job_id, {"total": 77777}, by="anna")
    until(browser, lambda _: "77777" in text_of(browser, ".context"))
    operators.resume(world.store, job_id, by="anna")
    until(browser, lambda _: "queued" in text_of(browser, ".summary"))
    assert browser.execute_script("return [window.stays, document.querySelector('#input').open]") == [1, True]


def test_new_jobs_are_announced_and_not_shoved_in(world: World, address: str, browser: Any) -> None:
    known = world.job()
    browser.get(f"{address}/jobs")
    until(browser, follows)
    fresh = world.job()
    until(browser, lambda _: "1 new job" in text_of(browser, "#announce"))
    assert fresh not in browser.page_source
    operators.cancel(world.store, known, by="anna")
    until(browser, lambda _: "cancelled" in text_of(browser, f"tr[data-href$='{known}']"))


def test_keys_travel_through_time(world: World, address: str, browser: Any) -> None:
    job_id = world.job()
    last = world.store.head(job_id).version
    browser.get(f"{address}/jobs/{job_id}")
    press(browser, "[")
    until(browser, lambda _: f"event {last - 1} of {last}" in text_of(browser, ".travel output"))
    assert f"at={last - 1}" in browser.current_url
    press(browser, "[")
    until(browser, lambda _: f"event {last - 2} of {last}" in text_of(browser, ".travel output"))
    press(browser, "]]")
    until(browser, lambda _: "as it was" not in text_of(browser, "#live"))


def test_the_slider_travels_through_time(world: World, address: str, browser: Any) -> None:
    job_id = world.job()
    browser.get(f"{address}/jobs/{job_id}")
    browser.execute_script(
        "const at = document.getElementById('at'); at.value = 3;at.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    until(browser, lambda _: "as it was at event 3" in text_of(browser, ".past"))


def test_keys_move_through_rows_and_to_the_search(world: World, address: str, browser: Any) -> None:
    world.job()
    world.job()
    browser.get(f"{address}/jobs")
    press(browser, "jjk")
    first = browser.execute_script("return document.activeElement.closest('tr')?.dataset.href")
    assert first == browser.find_elements("css selector", "tr[data-href]")[0].get_attribute("data-href")
    press(browser, "/")
    assert browser.execute_script("return document.activeElement.id") == "search"


def test_an_action_is_confirmed_and_done_by_clicks(world: World, address: str, browser: Any) -> None:
    job_id = world.job()
    browser.get(f"{address}/jobs/{job_id}")
    browser.find_element("link text", "Cancel").click()
    browser.find_element("id", "reason").send_keys("not wanted any more")
    browser.find_element("css selector", "form button.danger").click()
    until(browser, lambda _: "cancelled" in text_of(browser, ".summary"))
    assert list(world.store.read(job_id))[-1].data["reason"] == "not wanted any more"


def test_a_filter_stays_in_the_address(world: World, address: str, browser: Any) -> None:
    world.job(broken=False)
    browser.get(f"{address}/jobs")
    browser.find_element("css selector", ".chips a.good").click()
    assert "status=completed" in browser.current_url
    assert {cell.text for cell in browser.find_elements("css selector", ".jobs .status")} == {"✓ completed"}


@pytest.mark.heavy
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_script_that_a_job_holds_is_run(world: World, address: str, browser: Any, payload: str) -> None:
    job_id = create_hostile(world.store, payload)
    for path in (f"/jobs/{job_id}?since=1", "/jobs", f"/jobs/{job_id}/events", f"/jobs/{job_id}/do/retry"):
        browser.get(f"{address}{path}")
        assert browser.execute_script("return typeof window.__hit") == "undefined"


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_that_keeps_people_out(
    world: World, address: str, browser: Any, scheme: str, width: int
) -> None:
    axe = find_axe()
    job_id, hostile = world.job(), create_hostile(world.store, PAYLOADS[0] * 4)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    paths = (
        "/jobs",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}?at=5&since=2",
        f"/jobs/{job_id}/events",
        "/workflows",
        "/workflows/registration",
        "/system",
        f"/jobs/{hostile}",
        f"/jobs/{job_id}/do/reset?sub_step=prepare/price",
        "/login",
    )
    for path in paths:
        browser.get(f"{address}{path}")
        browser.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})
        found = browser.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run().then(found => done(found.violations.map(each =>"
            " `${each.id}: ${each.nodes.slice(0, 3).map(node => node.html).join(' ')}`)))"
        )
        assert found == [], path
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), path
