"""Items of a fan-out over HTTP and on their page: some at a time, of one status, now or as they were, masked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from api_world import World
from invited_guests import ITEMS, guests

from steplog.api import models
from steplog.api.app import service_for
from steplog.api.settings import ApiSettings
from steplog.engine.jobs import run_blocking
from steplog.eventstore.store import HeadQuery


@pytest.fixture
def world() -> World:
    world = World()
    world.app.state.service = service_for(world.store, ApiSettings(modules=["invited_guests"]))
    run_blocking(guests, store=world.store)
    return world


@pytest.fixture
def job(world: World) -> str:
    return world.store.heads(HeadQuery(limit=1))[0].job_id


def page(world: World, job: str, name: str = "main/invite", **asked: Any) -> Any:
    return world.client.get(f"/api/v1/jobs/{job}/sub-steps/{name}/items", params=asked)


def test_pages_have_every_item_once_and_in_order(world: World, job: str) -> None:
    names, cursor = [], None
    while True:
        answer = page(world, job, limit=100, **({"cursor": cursor} if cursor else {}))
        found = models.ItemPage.model_validate(answer.json())
        assert len(found.items) <= 100
        names += [each.item for each in found.items]
        cursor = found.next_cursor
        if cursor is None:
            break
        assert 'rel="next"' in answer.headers["link"]
    assert names == [f"guest {n}/<b>" for n in range(ITEMS)]
    assert found.counts["completed"] == ITEMS - 1


def test_those_of_one_status_say_why(world: World, job: str) -> None:
    found = page(world, job, status="failed").json()
    (failed,) = found["items"]
    assert (failed["item"], failed["status"], found["next_cursor"]) == ("guest 7/<b>", "failed", None)
    assert failed["error"]["message"].startswith("no answer to")
    assert failed["input"] == {"name": "guest 7/<b>", "card": "********"}


def test_who_knows_the_version_gets_304_and_the_past_is_for_ever(world: World, job: str) -> None:
    tag = page(world, job).headers["etag"]
    again = world.client.get(f"/api/v1/jobs/{job}/sub-steps/main/invite/items", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    past = page(world, job, at=8)
    assert "immutable" in past.headers["cache-control"]
    assert past.json()["counts"]["completed"] < ITEMS - 1


@pytest.mark.parametrize(
    ("name", "asked", "kind"),
    [
        ("main/close", {}, "no-items"),
        ("main/nobody", {}, "sub-step-not-found"),
        ("main/invite", {"cursor": "nobody"}, "sub-step-not-found"),
        ("main/invite", {"status": "lost"}, "invalid-request"),
        ("main/invite", {"limit": 100_000}, "invalid-request"),
    ],
)
def test_what_there_is_not_is_said(world: World, job: str, name: str, asked: dict[str, Any], kind: str) -> None:
    answer = page(world, job, name, **asked)
    assert answer.json()["type"] == f"urn:steplog:problem:{kind}", answer.json()


def test_the_jobs_page_links_to_a_page_of_them_and_lists_none(world: World, job: str) -> None:
    shown = world.client.get(f"/jobs/{job}").text
    assert "guest 3" not in shown
    (link,) = set(re.findall(rf'href="(/jobs/{job}/items\?step=[^"]+)"', shown))

    first = world.client.get(link)
    assert first.status_code == 200
    assert first.text.count("<tr>") == 1 + 100
    assert "guest 3/&lt;b&gt;" in first.text
    assert "<b>&" not in first.text
    (further,) = re.findall(r'href="([^"]+)">Further items', first.text)
    second = world.client.get(further.replace("&amp;", "&")).text
    assert "guest 100/" in second
    assert "guest 99/" not in second


def test_the_page_shows_one_status_and_the_past(world: World, job: str) -> None:
    failed = world.client.get(f"/jobs/{job}/items", params={"step": "main/invite", "status": "failed"}).text
    assert failed.count("<tr>") == 2
    assert "no answer" in failed
    assert "canary" not in failed
    past = world.client.get(f"/jobs/{job}/items", params={"step": "main/invite", "at": "8"}).text
    assert "as they were at event 8" in past
