"""Jobs of engines that are not ours: opened under a claim, then appended to; what is answered is durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from steplog.api import models
from steplog.api.answers import ServiceOf, answer, etag, problems
from steplog.api.problems import Problem, invalid
from steplog.api.service import Service
from steplog.api.settings import API
from steplog.engine.plan import plan_of
from steplog.engine.recorder import plan_named
from steplog.engine.recording import Described, GivenEvent, append_given, open_recording
from steplog.eventstore.errors import WrongState
from steplog.eventstore.store import Claim, Head
from steplog.projections.plan import Plan
from steplog.projections.snapshot import snapshot

router = APIRouter(prefix=API, tags=["recording"])


@router.post(
    "/jobs/{job_id}/events",
    status_code=202,
    response_model=models.Appended,
    responses=problems(404, 409, 413),
)
def append_events(service: ServiceOf, job_id: str, body: models.SentEvents) -> Response:
    """Append events of a recorded job behind the version that the client knows; the same events again are kept once.

    409 `fenced` where another recorder has opened the job, 409 `behind` with its version where its log has gone on.
    """
    given = [GivenEvent(_event_id(each.event_id), each.type, each.data) for each in body.events]
    claim = Claim(body.claim.worker_id, body.claim.epoch, body.claim.claim_id)
    try:
        version = append_given(service.store, job_id, claim, body.expected, given)
    except WrongState as error:
        _refuse_behind(service.store.head(job_id), body.expected, error)
    head = service.store.head(job_id)
    document = {
        "job_id": job_id,
        "version": version,
        "status": head.columns.status,
        "events": [each.type for each in body.events],
        "repeated": False,
        "dry_run": False,
    }
    return answer(document, 202, {"ETag": etag(version)})


def _refuse_behind(head: Head, expected: int, error: WrongState) -> NoReturn:
    """Tell a client that somebody else appended, and where the log is now; or why nothing can be appended."""
    if head.columns.mode == "recorded" and head.version != expected:
        told = f"the log of job {head.job_id} has gone on to version {head.version}, from {expected}"
        raise Problem(409, "behind", told, version=head.version, hint="send the same events behind that version")
    raise error


def open_recorded(service: Service, workflow: str, body: models.Submit, key: str | None, by: str) -> Response:
    """Begin a recorded job, or open the one that has the key under a fresh claim, which fences the one before."""
    plan = _plan(service, workflow, body.plan)
    described = Described(workflow, plan, input=body.input, tags=body.tags)
    recording = open_recording(service.store, described, by=by, key=key)
    claim = recording.claim
    document = {
        "job_id": recording.job_id,
        "version": recording.version,
        "status": recording.loaded.state["status"],
        "snapshot": service.jobs.masks(workflow).snapshot(snapshot(recording.loaded.state)),
        "claim": {"worker_id": claim.worker_id, "epoch": claim.epoch, "claim_id": claim.claim_id},
    }
    headers = {"Location": f"{API}/jobs/{recording.job_id}", "ETag": etag(recording.version)}
    return answer(document, 201 if claim.epoch == 1 else 200, headers)


def _plan(service: Service, workflow: str, given: dict[str, list[str]] | None) -> Plan:
    """The phases that the client names, else those that the code declares."""
    if given:
        return plan_named(workflow, {phase: _names(names) for phase, names in given.items()})
    definition = service.jobs.definitions.get(workflow)
    if definition is None:
        raise invalid("a recorded job of a workflow that is not declared here needs its plan", field="plan")
    return plan_of(definition)


def _names(names: Sequence[Any]) -> list[str]:
    return [str(name) for name in names]


def _event_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise invalid(f"{text[:60]!r} is no UUID", field="event_id") from None
