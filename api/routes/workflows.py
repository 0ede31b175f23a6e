"""Workflows that can be submitted here, and submitting."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.responses import Response

from steplog.api import models
from steplog.api.answers import CallerOf, ServiceOf, answer, etag, problems
from steplog.api.problems import Problem
from steplog.api.routes.recording import open_recorded
from steplog.api.schemas import context_schema, input_schema
from steplog.api.service import Service
from steplog.api.settings import API
from steplog.api.submitting import submit
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import WorkflowNotFound
from steplog.engine.plan import plan_of
from steplog.eventstore.codec import check_name

router = APIRouter(prefix=API, tags=["workflows"])


@router.get("/workflows", response_model=models.WorkflowList, responses=problems())
def list_workflows(service: ServiceOf) -> Response:
    """The workflows whose code is at hand here."""
    return answer({"items": [workflow_row(each) for each in service.jobs.definitions.values()]})


@router.get("/workflows/{name:path}", response_model=models.WorkflowDocument, responses=problems(404))
def get_workflow(service: ServiceOf, name: str) -> Response:
    """Phases, sub-steps and edges, and the JSON Schemas of input and context."""
    definition = definition_named(service, name)
    schemas = {"input_schema": input_schema(definition), "context_schema": context_schema(definition)}
    return answer(workflow_row(definition) | schemas)


@router.post(
    "/workflows/{name:path}/jobs",
    status_code=201,
    response_model=models.Submitted,
    responses={200: {"model": models.Submitted, "description": "the job of that key"}, **problems(404, 409, 413)},
)
def submit_job(
    service: ServiceOf,
    caller: CallerOf,
    name: str,
    body: models.Submit,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Put a job into the queue; the same key again is the same job.

    With `mode=recorded` nothing runs: the answer's claim is what another engine appends under, and the same key again
    gives a fresh one.
    """
    key = body.key or idempotency_key
    if body.mode == "recorded":
        if "ingest" not in caller.scopes:
            raise Problem(403, "scope-missing", f"token {caller.name} may not record", needed=["ingest"])
        return open_recorded(service, check_name(name, "workflow"), body, key, caller.name)
    if "operate" not in caller.scopes:
        raise Problem(403, "scope-missing", f"token {caller.name} may only record", needed=["operate"])
    definition = definition_named(service, name)
    submitted = submit(
        service.store,
        definition,
        body.input,
        key=key,
        tags=body.tags,
        priority=body.priority,
        run_at=body.run_at,
    )
    head = service.store.head(submitted.job_id)
    document = {"job_id": head.job_id, "version": head.version, "status": head.columns.status, "claim": None}
    headers = {"Location": f"/api/v1/jobs/{head.job_id}", "ETag": etag(head.version)}
    return answer(document, 201 if submitted.is_new else 200, headers)


def definition_named(service: Service, name: str) -> AnyDefinition:
    """The workflow's code. Raises WorkflowNotFound."""
    definition = service.jobs.definitions.get(name)
    if definition is None:
        raise WorkflowNotFound(name)
    return definition


def workflow_row(definition: AnyDefinition) -> dict[str, Any]:
    """A workflow as lists show it."""
    return {
        "name": definition.name,
        "version": definition.version,
        "phases": plan_of(definition)["phases"],
        "submittable": True,
    }
