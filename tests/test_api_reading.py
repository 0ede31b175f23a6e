"""Reading jobs over HTTP: the snapshot by version, pages, pictures, and problems for everything that goes wrong."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from api_world import World
from pydantic import BaseModel, TypeAdapter

from steplog.api import models
from steplog.engine import operators
from steplog.engine.history import load
from steplog.eventstore.sqlite import SQLiteStore
from steplog.projections.timeline import Timeline


@pytest.fixture
def world() -> World:
    return World()


def events_of(world: World, job_id: str) -> list[Any]:
    return list(world.store.read(job_id))


def test_a_snapshot_is_of_its_type_and_names_its_version(world: World) -> None:
    job_id = world.job()
    answer = world.client.get(f"/api/v1/jobs/{job_id}")
    found = models.Snapshot.model_validate(answer.json())
    assert (answer.status_code, found.status) == (200, "failed")
    assert answer.headers["etag"] == f'"v{found.version}"'
    assert (found.phases["deliver"].sub_steps["ship"].error or {})["message"] == "the van is broken"
    assert found.allowed_actions is not None
    assert "resume" in found.allowed_actions


def test_who_knows_the_version_gets_304_and_who_knows_another_one_the_job(world: World) -> None:
    job_id = world.job()
    tag = world.client.get(f"/api/v1/jobs/{job_id}").headers["etag"]
    again = world.client.get(f"/api/v1/jobs/{job_id}", headers={"If-None-Match": f'"v1", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert world.client.get(f"/api/v1/jobs/{job_id}", headers={"If-None-Match": '"v1"'}).status_code == 200


def test_every_version_is_what_the_log_folds_to(world: World) -> None:
    job_id = world.job()
    for version in range(1, world.store.head(job_id).version + 1):
        answer = world.client.get(f"/api/v1/jobs/{job_id}?at={version}")
        assert answer.json()["version"] == version
        assert answer.json()["status"] == load(world.store, job_id, version).state["status"]
        assert "immutable" in answer.headers["cache-control"]
        assert "allowed_actions" not in answer.json()


def test_a_time_names_the_last_version_until_then(world: World) -> None:
    job_id = world.job()
    for event in events_of(world, job_id):
        found = world.client.get(f"/api/v1/jobs/{job_id}", params={"at": event.recorded_at}).json()["version"]
        assert found == max(each.version for each in events_of(world, job_id) if each.recorded_at <= event.recorded_at)


@pytest.mark.parametrize("path", ["", "/resume-point", "/timeline", "/timeline.svg"])
def test_a_time_that_names_the_latest_version_may_name_another_one_later(world: World, path: str) -> None:
    job_id = world.job()
    first, *_, last = events_of(world, job_id)
    shown = {
        at: world.client.get(f"/api/v1/jobs/{job_id}{path}", params={"at": at}).headers["cache-control"]
        for at in (first.recorded_at, last.recorded_at, "2999-01-01T00:00:00Z")
    }
    assert ["immutable" in each for each in shown.values()] == [True, False, False]


@pytest.mark.parametrize("at", ["0", "999", "1999-01-01T00:00:00Z"])
def test_a_version_that_there_is_not_is_a_problem(world: World, at: str) -> None:
    answer = world.client.get(f"/api/v1/jobs/{world.job()}", params={"at": at})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:steplog:problem:version-not-found")


def test_what_is_kept_of_a_job_follows_it(world: World) -> None:
    job_id = world.job()
    assert world.client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "failed"
    operators.cancel(world.store, job_id, by="anna")
    assert world.client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_long_poll_is_answered_when_the_job_moves_on(sqlite_store: SQLiteStore) -> None:
    world = World(sqlite_store)
    job_id = world.job()
    version = world.store.head(job_id).version
    with world.client as client:  # one event loop for the whole test
        cancelling = threading.Timer(0.05, lambda: operators.cancel(world.store, job_id, by="anna"))
        cancelling.start()
        answer = client.get(f"/api/v1/jobs/{job_id}?wait=30&since={version}")
        cancelling.join()
    assert answer.json()["status"] == "cancelled"


def test_a_long_poll_behind_the_present_does_not_wait(world: World) -> None:
    assert world.client.get(f"/api/v1/jobs/{world.job()}?wait=30&since=1").status_code == 200


def test_pages_of_jobs_are_all_jobs_once_newest_first(world: World) -> None:
    made = [world.job() for _ in range(5)]
    found: list[str] = []
    path: str | None = "/api/v1/jobs?limit=2&workflow=orders&status=failed"
    while path:
        answer = world.client.get(path)
        found += [row.job_id for row in models.JobPage.model_validate(answer.json()).items]
        path = answer.links["next"]["url"] if "next" in answer.links else None
    assert found == made[::-1]


def test_filters_list_what_matches(world: World) -> None:
    job_id = world.job(key="k1")
    world.job(broken=False)

    def listed(**query: str) -> list[str]:
        return [row["job_id"] for row in world.client.get("/api/v1/jobs", params=query).json()["items"]]

    assert listed(key="k1") == listed(status="failed") == listed(failed_sub_step="ship") == [job_id]
    assert listed(workflow="nothing") == listed(tag="a=b") == []


def test_pages_of_events_are_the_whole_history(world: World) -> None:
    job_id = world.job()
    found: list[int] = []
    after: int | None = 0
    while after is not None:
        page = world.client.get(f"/api/v1/jobs/{job_id}/events", params={"after": after, "limit": 3}).json()
        found += [event.version for event in models.EventPage.model_validate(page).items]
        after = page["next_after"]
    assert found == [event.version for event in events_of(world, job_id)]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("resume-point", models.ResumePoint),
        ("timeline", Timeline),
        ("diff?from=1", list[models.PatchOperation]),
        ("diff?from=2&to=5", list[models.PatchOperation]),
    ],
)
def test_answers_are_of_their_types(world: World, path: str, kind: Any) -> None:
    answer = world.client.get(f"/api/v1/jobs/{world.job()}/{path}")
    assert answer.status_code == 200
    TypeAdapter(kind).validate_python(answer.json())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/healthz", models.Health),
        ("/readyz", models.Readiness),
        ("/api/v1/stats", models.Stats),
        ("/api/v1/workers", models.WorkerList),
        ("/api/v1/workflows", models.WorkflowList),
        ("/api/v1/workflows/orders", models.WorkflowDocument),
    ],
)
def test_answers_about_the_system_are_of_their_types(world: World, path: str, kind: type[BaseModel]) -> None:
    world.job()
    kind.model_validate(world.client.get(path).json())


def test_the_picture_may_use_its_own_style_and_nothing_else(world: World) -> None:
    answer = world.client.get(f"/api/v1/jobs/{world.job()}/timeline.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert answer.text.startswith("<svg")


def test_figures_count_jobs_and_requests() -> None:
    world = World(keep_alive_s=14.0)  # an app of its own
    world.job()
    world.client.get("/api/v1/jobs")
    text = world.client.get("/metrics").text
    assert 'steplog_jobs{workflow="orders",status="failed"} 1' in text
    assert 'steplog_http_request_seconds_count{method="GET",route="/api/v1/jobs",status="200"} 1' in text


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/api/v1/jobs/nothing", 404, "job-not-found"),
        ("GET", "/api/v1/nothing", 404, "not-found"),
        ("DELETE", "/api/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/api/v1/jobs?limit=1000000000", 422, "invalid-request"),
        ("GET", "/api/v1/jobs?limit=0", 422, "invalid-request"),
        ("GET", "/api/v1/jobs?status=nonsense", 422, "invalid-request"),
        ("GET", "/api/v1/jobs?cursor=nonsense", 422, "invalid-request"),
        ("GET", "/api/v1/jobs?since=nonsense", 422, "invalid-request"),
        ("GET", "/api/v1/jobs?since=0001-01-01T00:00:00%2B23:59", 422, "invalid-request"),
        ("GET", "/api/v1/jobs?tag=nonsense", 422, "invalid-request"),
        ("GET", "/api/v1/jobs?key=%00", 422, "value-refused"),
        ("GET", "/api/v1/events/stream?after=nonsense", 422, "cursor-refused"),
        ("GET", "/api/v1/workflows/nothing", 404, "workflow-not-found"),
        ("POST", "/api/v1/workflows/orders/jobs", 422, "invalid-request"),
    ],
)
def test_everything_that_goes_wrong_is_a_problem(world: World, method: str, path: str, status: int, kind: str) -> None:
    answer = world.client.request(method, path)
    problem = models.ProblemDocument.model_validate(answer.json())
    assert (answer.status_code, problem.status, problem.type) == (status, status, f"urn:steplog:problem:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_description_refers_to_nothing_that_it_does_not_hold(world: World) -> None:
    text = world.client.get("/openapi.json").text
    referred = set(re.findall(r"#/components/schemas/([A-Za-z_]+)", text))
    assert "ProblemDocument" in referred
    assert referred <= set(world.client.get("/openapi.json").json()["components"]["schemas"])
