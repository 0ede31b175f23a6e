"""Another engine's jobs over HTTP: opened under a claim, appended to once, fenced by whoever opens them next."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from api_world import TOKENS, World

PLAN = {"phase1": ["codeGeneration", "uploadImages"], "phase2": ["menuImport"]}


@pytest.fixture
def world() -> World:
    return World(tokens=TOKENS, name="node")


def opened(world: World, key: str = "r42") -> dict[str, Any]:
    body = {"mode": "recorded", "plan": PLAN, "key": key, "input": {"id": 42}}
    answer = world.client.post("/api/v1/workflows/node-registration/jobs", json=body)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


def event(type: str, sub_step: str = "codeGeneration", **data: Any) -> dict[str, Any]:
    return {"event_id": str(uuid4()), "type": type, "data": {"phase": "phase1", "sub_step": sub_step, **data}}


def started() -> list[dict[str, Any]]:
    begun = {"event_id": str(uuid4()), "type": "PhaseStarted", "data": {"phase": "phase1"}}
    return [begun, event("SubStepStarted", attempt=1, idempotency_key="k")]


def append(world: World, job: dict[str, Any], events: list[dict[str, Any]], expected: int | None = None) -> Any:
    body = {"claim": job["claim"], "expected": expected or job["version"], "events": events}
    return world.client.post(f"/api/v1/jobs/{job['job_id']}/events", json=body)


def test_what_another_engine_says_is_in_the_log(world: World) -> None:
    job = opened(world)
    first = append(world, job, started())
    assert (first.status_code, first.headers["etag"]) == (202, f'"v{job["version"] + 2}"')
    done = event("SubStepCompleted", attempt=1, result=["a.html"], seconds=1.5)
    assert append(world, job, [done], first.json()["version"]).status_code == 202
    shown = world.as_token("reader").get(f"/api/v1/jobs/{job['job_id']}").json()
    assert shown["phases"]["phase1"]["sub_steps"]["codeGeneration"]["result"] == ["a.html"]
    assert world.store.head(job["job_id"]).columns.mode == "recorded"


def test_the_same_events_again_are_kept_once(world: World) -> None:
    job, events = opened(world), started()
    assert append(world, job, events).json()["version"] == append(world, job, events).json()["version"]
    assert world.store.head(job["job_id"]).version == job["version"] + 2


def test_who_opens_the_job_again_fences_the_one_before(world: World) -> None:
    first = opened(world)
    again = opened(world)
    assert again["job_id"] == first["job_id"]
    assert again["claim"]["epoch"] > first["claim"]["epoch"]
    refused = append(world, first, started(), again["version"])
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:steplog:problem:fenced")
    assert append(world, again, started()).status_code == 202


def test_who_is_behind_is_told(world: World) -> None:
    job = opened(world)
    append(world, job, started())
    late = append(world, job, [event("SubStepStarted", "uploadImages", attempt=1, idempotency_key="k2")])
    assert (late.status_code, late.json()["type"]) == (409, "urn:steplog:problem:behind")
    assert late.json()["version"] == job["version"] + 2


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event("SubStepExploded")],
        [event("SubStepStarted", nonsense=1)],
        [event("SubStepStarted", "nothing", attempt=1, idempotency_key="k")],
        [{"event_id": str(uuid4()), "type": "JobClaimed", "data": {"worker_id": "w", "epoch": 9, "claim_id": "c"}}],
        [{**event("SubStepStarted", attempt=1, idempotency_key="k"), "event_id": "nonsense"}],
    ],
    ids=["none", "unknown type", "unknown field", "unknown sub-step", "a claim", "no id"],
)
def test_events_that_do_not_fit_are_refused_and_leave_no_trace(world: World, events: list[dict[str, Any]]) -> None:
    job = opened(world)
    assert append(world, job, events).status_code == 422
    assert world.store.head(job["job_id"]).version == job["version"]


def test_our_own_jobs_are_not_appended_to(world: World) -> None:
    job_id = world.job()
    claim = {"worker_id": "", "epoch": 1, "claim_id": "c"}
    body = {"claim": claim, "expected": world.store.head(job_id).version, "events": started()}
    assert world.client.post(f"/api/v1/jobs/{job_id}/events", json=body).status_code == 409


def test_who_may_record_may_not_submit_and_the_other_way_round(world: World) -> None:
    path = "/api/v1/workflows/orders/jobs"
    assert world.client.post(path, json={"input": {}}).status_code == 403
    assert world.as_token("anna").post(path, json={"mode": "recorded", "plan": PLAN}).status_code == 403
    assert world.as_token("anna").post(path, json={"input": {}}).status_code == 201
