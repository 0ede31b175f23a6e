"""Doing something to jobs over HTTP: 202 with the new version, and nothing done to a job that has moved on."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World

from steplog.api import models


@pytest.fixture
def world() -> World:
    return World()


def post(world: World, job_id: str, action: str, body: Any = None, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.client.post(f"/api/v1/jobs/{job_id}/{action}", json=body, headers=sent)


def version(world: World, job_id: str) -> int:
    return world.store.head(job_id).version


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("resume", {"reason": "the van is back"}, "queued"),
        ("retry", None, "queued"),
        ("cancel", None, "cancelled"),
        ("signals/go", {"payload": 1}, "failed"),
        ("context", {"set": {"total": 7}}, "failed"),
        ("input", {"input": {"shop": "other"}}, "failed"),
        ("sub-steps/deliver/ship/retry", None, "queued"),
        ("sub-steps/deliver/ship/skip", {"reason": "picked up"}, "failed"),
        ("sub-steps/deliver/ship/complete", {"result": "by hand"}, "failed"),
        ("sub-steps/deliver/ship/reset", None, "queued"),
    ],
)
def test_an_action_is_answered_with_202_and_the_new_version(world: World, action: str, body: Any, status: str) -> None:
    job_id = world.job()
    answer = post(world, job_id, action, body)
    made = models.Appended.model_validate(answer.json())
    assert answer.status_code == 202, made
    assert answer.headers["etag"] == f'"v{version(world, job_id)}"'
    assert made.events
    assert made.status in (status, world.store.head(job_id).columns.status)


def test_who_did_it_and_why_is_in_the_log(world: World) -> None:
    job_id = world.job()
    post(world, job_id, "resume", {"reason": "the van is back"})
    last = list(world.store.read(job_id))[-1]
    assert (last.data["by"], last.data["reason"]) == ("tester", "the van is back")


def test_nothing_is_done_to_a_job_that_has_moved_on(world: World) -> None:
    job_id = world.job()
    before = version(world, job_id)
    answer = post(world, job_id, "cancel", If_Match=f'"v{before - 1}"')
    assert (answer.status_code, answer.json()["version"]) == (412, before)
    assert version(world, job_id) == before
    assert post(world, job_id, "cancel", If_Match=f'"v{before}"').status_code == 202


@pytest.mark.parametrize("tag", ['"27"', "nonsense", '"v-1"', '"v1", "v2"'])
def test_an_if_match_that_is_no_version_does_nothing(world: World, tag: str) -> None:
    job_id = world.job()
    before = version(world, job_id)
    assert post(world, job_id, "cancel", If_Match=tag).status_code == 412
    assert version(world, job_id) == before


def test_what_is_not_allowed_says_what_is(world: World) -> None:
    job_id = world.job()
    answer = post(world, job_id, "pause")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:steplog:problem:wrong-state"
    assert {"resume", "cancel"} <= set(answer.json()["allowed_actions"])


def test_a_dry_run_says_what_would_be_and_appends_nothing(world: World) -> None:
    job_id = world.job()
    before = version(world, job_id)
    answer = post(world, job_id, "sub-steps/prepare/price/reset?dry_run=1")
    assert answer.json()["dry_run"] is True
    reset = next(each["data"] for each in answer.json()["would"] if each["type"] == "SubStepReset")
    assert set(reset["sub_steps"]) == {"prepare/price", "deliver/ship"}
    assert version(world, job_id) == before


def test_the_same_request_again_appends_nothing(world: World) -> None:
    job_id = world.job()
    first = post(world, job_id, "signals/go", {"payload": 1}, Idempotency_Key="once")
    again = post(world, job_id, "signals/go", {"payload": 1}, Idempotency_Key="once")
    assert first.headers["etag"] == again.headers["etag"]
    assert again.json()["repeated"] is True


def test_a_fork_is_another_job(world: World) -> None:
    job_id = world.job()
    made = post(world, job_id, "fork", {"at": 4}).json()
    assert made["job_id"] != job_id
    assert world.client.get(f"/api/v1/jobs/{made['job_id']}").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("sub-steps/deliver/nothing/skip", None),
        ("sub-steps/nothing/ship/skip", None),
    ],
)
def test_a_sub_step_that_there_is_not_is_not_found(world: World, action: str, body: Any) -> None:
    assert post(world, world.job(), action, body).json()["type"] == "urn:steplog:problem:sub-step-not-found"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("resume", {"nonsense": 1}),
        ("resume", []),
        ("context", {"set": {"nothing": 1}}),
        ("context", {"set": {"total": "many"}}),
        ("context", {"set": {"total": 10**30}}),
        ("input", {"input": {"shop": 1}}),
        ("sub-steps/deliver/ship/complete", {"result": 7}),
        ("resume", {"reason": "x" * 1001}),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_trace(world: World, action: str, body: Any) -> None:
    job_id = world.job()
    before = version(world, job_id)
    answer = post(world, job_id, action, body)
    assert (answer.status_code, version(world, job_id)) == (422, before)


# --- submitting ------------------------------------------------------------------------------------------------------


def submit(world: World, body: Any, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.client.post("/api/v1/workflows/orders/jobs", json=body, headers=sent)


def test_a_job_is_submitted_once_for_its_key(world: World) -> None:
    first = submit(world, {"input": {"shop": "a"}}, Idempotency_Key="k")
    again = submit(world, {"input": {"shop": "a"}}, Idempotency_Key="k")
    other = submit(world, {"input": {"shop": "b"}}, Idempotency_Key="k")
    assert [first.status_code, again.status_code, other.status_code] == [201, 200, 422]
    assert first.headers["location"] == again.headers["location"]
    assert other.json()["type"] == "urn:steplog:problem:key-conflict"
    assert world.client.get(first.headers["location"]).json()["status"] == "queued"


def test_tags_priority_and_time_are_kept(world: World) -> None:
    body = {"input": {}, "tags": {"city": "Bern"}, "priority": 5, "run_at": "2100-01-01T00:00:00+01:00"}
    job_id = submit(world, body).json()["job_id"]
    row = world.client.get("/api/v1/jobs", params={"tag": "city=Bern"}).json()["items"][0]
    assert (row["job_id"], row["priority"]) == (job_id, 5)
    assert row["wake_at"] == "2099-12-31T23:00:00.000000Z"


@pytest.mark.parametrize(
    "body",
    [
        {"input": {"shop": 1}},
        {"input": {}, "run_at": "tomorrow"},
        {"input": {}, "priority": 10**9},
        {"input": {}, "tags": {"": "x"}},
        {"nonsense": 1},
    ],
)
def test_a_submission_that_does_not_fit_makes_no_job(world: World, body: Any) -> None:
    assert submit(world, body).status_code == 422
    assert world.client.get("/api/v1/jobs").json()["items"] == []
