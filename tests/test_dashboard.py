"""The dashboard as it is sent: what is wrong is said, everything works without scripts, nothing can smuggle one in."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from api_world import HERE, World
from hostile_jobs import create_hostile, create_long
from xss_payloads import PAYLOADS

from steplog.api.pages.forms import fields_of, value_of
from steplog.api.pages.rendering import FOLDER
from steplog.engine.plan import plan_of
from steplog.examples.registration.workflow import registration
from steplog.projections.graph_svg import graph_svg

PAGE = {"Accept": "text/html"}


@pytest.fixture
def world() -> World:
    return World()


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(world: World, path: str, status: int = 200) -> Elements:
    answer = world.client.get(path, headers=PAGE)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return Elements(answer.text)


def send(world: World, path: str, **form: str) -> Any:
    return world.client.post(path, data=form, headers={**PAGE, "Origin": HERE, "Sec-Fetch-Site": "same-origin"})


# --- what pages say --------------------------------------------------------------------------------------------------


def test_the_list_says_what_went_wrong_and_leads_to_each_job(world: World) -> None:
    failed, done = world.job(key="k1"), world.job(broken=False)
    shown = page(world, "/jobs")
    assert "the van is broken" in shown.text
    assert {f"/jobs/{failed}", f"/jobs/{done}"} <= {link.get("href") for link in shown.all("a")}
    assert "failed 1" in " ".join(shown.text.split())


def test_filters_are_in_the_address(world: World) -> None:
    failed, done = world.job(), world.job(broken=False)
    links = {link.get("href") for link in page(world, "/jobs?status=failed&workflow=orders").all("a")}
    assert f"/jobs/{failed}" in links
    assert f"/jobs/{done}" not in links


def test_a_search_that_finds_one_job_goes_to_it(world: World) -> None:
    job_id = world.job(key="lakeside")
    world.job()
    for text in ("lakeside", job_id, job_id[-8:], f"…{job_id[-6:]}"):
        assert world.client.get("/jobs", params={"q": text}).headers["location"] == f"/jobs/{job_id}"
    assert "No job matches" in page(world, "/jobs?q=nothing").text


def test_a_failure_is_readable_without_a_click_and_so_is_what_to_do(world: World) -> None:
    job_id = world.job()
    shown = page(world, f"/jobs/{job_id}")
    assert "the van is broken" in shown.text
    assert "Resume" in shown.text
    offered = {link.get("href") for link in shown.all("a")}
    assert f"/jobs/{job_id}/do/resume" in offered
    assert f"/jobs/{job_id}/do/skip?sub_step=deliver/ship" in offered
    assert not [each for each in shown.all("button") if "disabled" in each]


def test_every_version_of_a_job_has_its_page(world: World) -> None:
    job_id = world.job()
    last = world.store.head(job_id).version
    for version in range(1, last + 1):
        shown = page(world, f"/jobs/{job_id}?at={version}&since=1")
        (slider,) = [each for each in shown.all("input") if each.get("type") == "range"]
        assert (slider["min"], slider["max"], slider["value"]) == ("1", str(last), str(version))
    assert "do/resume" not in str(page(world, f"/jobs/{job_id}?at={last - 1}").all("a"))


def test_where_something_broke_is_marked_on_the_slider(world: World) -> None:
    job_id = world.job()
    broke = [event.version for event in world.store.read(job_id) if event.type in ("SubStepFailed", "JobFailed")]
    links = {link.get("href") for link in page(world, f"/jobs/{job_id}").all("a")}
    assert {f"/jobs/{job_id}?at={version}" for version in broke} <= links


def test_what_changed_since_a_version_is_shown(world: World) -> None:
    job_id = world.job()
    shown = page(world, f"/jobs/{job_id}?since=1")
    assert "context › total" in shown.text
    assert shown.all("tr")


def test_the_history_can_be_filtered_and_downloaded(world: World) -> None:
    job_id = world.job()
    shown = page(world, f"/jobs/{job_id}/events?type=SubStepFailed")
    assert "the van is broken" in shown.text
    lines = world.client.get(f"/jobs/{job_id}/events.jsonl").text.splitlines()
    assert len(lines) == world.store.head(job_id).version


@pytest.mark.parametrize("path", ["/jobs/nothing", "/nothing", "/workflows/nothing", "/jobs?cursor=%00"])
def test_a_person_is_told_of_a_problem_on_a_page(world: World, path: str) -> None:
    answer = world.client.get(path, headers=PAGE)
    assert answer.status_code in (404, 422, 200)
    assert answer.headers["content-type"].startswith("text/html")


# --- doing something -------------------------------------------------------------------------------------------------


def test_an_action_is_confirmed_before_it_is_done(world: World) -> None:
    job_id = world.job()
    before = world.store.head(job_id).version
    shown = page(world, f"/jobs/{job_id}/do/reset?sub_step=prepare/price")
    assert "SubStepReset" in shown.text
    assert "deliver/ship" in shown.text
    assert world.store.head(job_id).version == before
    form = {str(each["name"]): each.get("value") or "" for each in shown.all("input") if each.get("type") == "hidden"}
    answer = send(world, f"/jobs/{job_id}/do/reset", **form, reason="a new price")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job_id}")
    assert world.store.head(job_id).columns.status == "queued"
    assert send(world, f"/jobs/{job_id}/do/reset", **form).status_code == 303  # sent twice, done once
    assert [event.type for event in world.store.read(job_id)].count("SubStepReset") == 1


@pytest.mark.parametrize(
    ("action", "form", "type"),
    [
        ("resume", {}, "JobResumed"),
        ("retry", {}, "JobResumed"),
        ("cancel", {}, "JobCancelled"),
        ("signal", {"name": "go", "payload": '{"a": 1}'}, "SignalReceived"),
        ("set", {"set": '{"total": 7}'}, "ContextChanged"),
        ("edit-input", {"input": '{"shop": "other"}'}, "InputChanged"),
        ("skip", {"sub_step": "deliver/ship"}, "SubStepSkipped"),
        ("complete", {"sub_step": "deliver/ship", "result": '"by hand"'}, "SubStepCompleted"),
        ("retry", {"sub_step": "deliver/ship"}, "JobResumed"),
    ],
)
def test_every_action_can_be_done_from_its_form(world: World, action: str, form: dict[str, str], type: str) -> None:
    job_id = world.job()
    path = f"/jobs/{job_id}/do/{action}"
    query = f"?sub_step={form['sub_step']}" if "sub_step" in form else ""
    fields = {str(each.get("name")) for each in page(world, path + query).all("input")}
    fields |= {str(each.get("name")) for each in page(world, path + query).all("textarea")}
    assert form.keys() <= fields
    assert send(world, path, **form, reason="because").status_code == 303
    assert type in {event.type for event in world.store.read(job_id)}


@pytest.mark.parametrize(
    ("action", "form", "status"),
    [
        ("pause", {}, 409),
        ("set", {"set": "nonsense"}, 422),
        ("set", {"set": "[1]"}, 422),
        ("set", {"set": '{"total": "many"}'}, 422),
        ("signal", {"name": ""}, 422),
        ("nonsense", {}, 404),
        ("skip", {"sub_step": "deliver/nothing"}, 404),
    ],
)
def test_what_cannot_be_done_is_said_on_the_form(world: World, action: str, form: dict[str, str], status: int) -> None:
    job_id = world.job()
    before = world.store.head(job_id).version
    answer = send(world, f"/jobs/{job_id}/do/{action}", **form)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert world.store.head(job_id).version == before


def test_a_fork_is_shown_when_it_is_made(world: World) -> None:
    job_id = world.job()
    location = send(world, f"/jobs/{job_id}/do/fork", at="4").headers["location"]
    assert location != f"/jobs/{job_id}"
    page(world, location)


# --- forms and graphs ------------------------------------------------------------------------------------------------


def test_a_job_is_submitted_from_a_form_made_of_its_schema(world: World) -> None:
    shown = page(world, "/workflows/orders")
    names = {each.get("name") for kind in ("input", "select", "textarea") for each in shown.all(kind)}
    assert {"input/shop", "input/card", "input/broken", "key", "request_id"} <= names
    (card,) = [each for each in shown.all("input") if each.get("name") == "input/card"]
    assert (card["type"], card.get("placeholder")) == ("password", "")
    form = {"input/shop": "market", "input/broken": "false", "request_id": "r1"}
    location = send(world, "/workflows/orders", **form).headers["location"]
    assert send(world, "/workflows/orders", **form).headers["location"] == location
    job_id = location.rpartition("/")[2]
    created = next(iter(world.store.read(job_id))).data["input"]
    assert (created["shop"], created["broken"]) == ("market", False)


def test_a_form_that_does_not_fit_is_shown_again_with_what_was_given(world: World) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}}
    with pytest.raises(Exception, match="n is not a number"):
        value_of(fields_of(schema, {}), {"input/n": "x"})
    assert [field.value for field in fields_of(schema, {"input/s": "kept"})] == ["", "kept"]


@pytest.mark.parametrize(
    ("schema", "given", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {}, {}),
        ({"type": "object", "properties": {"a/b": {"type": "string"}}}, {"input/a~1b": "x"}, {"a/b": "x"}),
        ({"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}, {"input/a": "y"}, {"a": "y"}),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, {"input/a": "[1]"}, {"a": [1]}),
        ({"type": "object", "properties": {"a": {"anyOf": [{"type": "number"}, {"type": "null"}]}}}, {
            "input/a": "1.5",
        }, {"a": 1.5}),
        ({"$defs": {"D": {"type": "object", "properties": {"b": {"type": "boolean"}}}}, "type": "object",
          "properties": {"d": {"$ref": "#/$defs/D"}}}, {"input/d/b": "true"}, {"d": {"b": True}}),
        ({"type": "string"}, {"input": "x"}, "x"),
        ({"type": "array"}, {"input": "[1, 2]"}, [1, 2]),
    ],
)  # fmt: skip
def test_a_filled_form_stands_for_a_value(schema: dict[str, Any], given: dict[str, str], value: Any) -> None:
    assert value_of(fields_of(schema, given), given) == value


def test_a_graph_shows_every_sub_step_and_edge() -> None:
    plan = plan_of(registration)
    drawn = graph_svg(plan)
    steps = [step for phase in plan["phases"] for step in phase["sub_steps"]]
    assert drawn.count('rx="5"') == len(steps)
    assert drawn.count('class="arrow') == sum(len({*step["after"], *step["needs"]}) for step in steps)


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_the_scripts_are_small_and_none_is_inline(world: World) -> None:
    packed = sum(
        len(gzip.compress((FOLDER / "static" / name).read_bytes())) for name in ("htmx.min.js", "dashboard.js")
    )
    assert packed <= 25_000
    job_id = world.job()
    for path in ("/jobs", f"/jobs/{job_id}", "/workflows/orders", "/system", f"/jobs/{job_id}/do/resume", "/login"):
        shown = page(world, path)
        assert all((script.get("src") or "").startswith("/static/") for script in shown.all("script"))
        assert not shown.all("style")
        assert not [
            name for _, attributes in shown.found for name in attributes if name.startswith("on") or name == "style"
        ]


def test_htmx_comes_with_its_licence(world: World) -> None:
    assert "Zero-Clause BSD" in world.client.get("/static/htmx.license.txt").text
    assert world.client.get("/static/../routes.py").status_code == 404


def test_the_page_of_a_long_job_stays_small(world: World) -> None:
    job_id = create_long(world.store, 2300)
    text = world.client.get(f"/jobs/{job_id}", headers=PAGE).text
    assert len(text) < 100_000
    assert "Draw the timeline" in text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_a_job_holds_is_text_on_its_page(world: World, payload: str) -> None:
    job_id = create_hostile(world.store, payload)
    refuse_what_runs(page(world, f"/jobs/{job_id}?since=1"))


def test_what_jobs_hold_is_text_on_every_other_page(world: World) -> None:
    made = [create_hostile(world.store, payload) for payload in PAYLOADS]
    for path in ("/jobs", "/workflows", "/system", f"/jobs/{made[0]}/events", f"/jobs/{made[0]}/do/retry"):
        refuse_what_runs(page(world, path))


def refuse_what_runs(shown: Elements) -> None:
    """Nothing on the page is anything but what the templates write."""
    assert all((script.get("src") or "").startswith("/static/") for script in shown.all("script"))
    assert {tag for tag, _ in shown.found} <= KNOWN_TAGS
    assert not [name for _, attributes in shown.found for name in attributes if name.startswith(("on", "hx-on"))]
    links = [value or "" for _, attributes in shown.found for name, value in attributes.items() if name == "href"]
    assert all(re.match(r"[/#]", link) for link in links)


KNOWN_TAGS = {
    "a", "article", "b", "body", "button", "caption", "circle", "code", "dd", "defs", "del", "details", "div", "dl",
    "dt",
    "fieldset", "form", "g", "h1", "h2", "h3", "head", "header", "html", "i", "input", "ins", "label", "legend", "li",
    "link", "main", "meta", "nav", "ol", "option", "output", "p", "path", "pattern", "pre", "progress", "rect",
    "script",
    "section", "select", "small", "span", "summary", "svg", "table", "tbody", "td", "text", "textarea", "th", "thead",
    "time", "title", "tr", "ul",
}  # fmt: skip
