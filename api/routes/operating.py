"""What people do to a job over HTTP: each an event with who and why, answered with 202 and the job's new ETag.

The token's name is who did it. `Idempotency-Key` makes a request safe to send again, `If-Match` holds it to the version
that was looked at, `dry_run` says what would be appended and appends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from steplog.api import models
from steplog.api.answers import CallerOf, ServiceOf, answer, etag, expected_version, problems
from steplog.api.service import Service
from steplog.api.settings import API
from steplog.engine import fork as forking
from steplog.engine import operators
from steplog.engine.definition import AnyDefinition
from steplog.engine.operators import Appended

router = APIRouter(prefix=API, tags=["operating"])

_ANSWERS: dict[str, Any] = {
    "status_code": 202,
    "response_model": models.Appended,
    "responses": problems(404, 409, 412, 413),
}


class Asked(TypedDict):
    """Who asks, and how, in the words of `operators`."""

    by: str
    request_id: str | None
    expected: int | None
    dry_run: bool


def asked_of(
    request: Request,
    caller: CallerOf,
    dry_run: bool = False,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    if_match: Annotated[str | None, Header(max_length=80, description="The version that was looked at.")] = None,
) -> Asked:
    """What every request of these says."""
    return Asked(by=caller.name, request_id=idempotency_key, expected=expected_version(request), dry_run=dry_run)


AskedOf = Annotated[Asked, Depends(asked_of)]


def appended(service: Service, made: Appended, *, dry_run: bool) -> Response:
    """202 with what was appended, or would be."""
    state = made.state
    document: dict[str, Any] = {
        "job_id": state["job_id"],
        "version": state["version"],
        "status": state["status"],
        "events": [event.type() for event in made.events],
        "repeated": made.repeated,
        "dry_run": dry_run,
    }
    if dry_run:
        masks, texts = service.jobs.masks(state["workflow"]), service.jobs.secrets(state)
        shown = [(event.type(), masks.data(event.type(), event.as_data(), texts)) for event in made.events]
        document["would"] = [{"type": type, "data": data} for type, data in shown]
        return answer(document, 202)
    headers = {"ETag": etag(state["version"]), "Location": f"/api/v1/jobs/{state['job_id']}"}
    return answer(document, 202, headers)


def definition_of(service: Service, job_id: str) -> AnyDefinition | None:
    """The code of the job's workflow, where it is at hand: it checks what people give."""
    return service.jobs.definitions.get(service.store.head(job_id).columns.workflow)


def _reason(body: models.Because | None) -> str | None:
    return None if body is None else body.reason


# --- the job ---------------------------------------------------------------------------------------------------------


@router.post("/jobs/{job_id}/pause", **_ANSWERS)
def pause(service: ServiceOf, asked: AskedOf, job_id: str, body: models.Because | None = None) -> Response:
    """Stop once nothing is in progress."""
    made = operators.pause(service.store, job_id, reason=_reason(body), **asked)
    return appended(service, made, dry_run=asked["dry_run"])


@router.post("/jobs/{job_id}/cancel", **_ANSWERS)
def cancel(service: ServiceOf, asked: AskedOf, job_id: str, body: models.Because | None = None) -> Response:
    """End before the end."""
    made = operators.cancel(service.store, job_id, reason=_reason(body), **asked)
    return appended(service, made, dry_run=asked["dry_run"])


@router.post("/jobs/{job_id}/resume", **_ANSWERS)
def resume(service: ServiceOf, asked: AskedOf, job_id: str, body: models.Resume | None = None) -> Response:
    """Put a job that waits for a person back in the queue; a worker goes on with it."""
    given = body or models.Resume()
    made = operators.resume(service.store, job_id, accept=given.accept, reason=given.reason, **asked)
    return appended(service, made, dry_run=asked["dry_run"])


@router.post("/jobs/{job_id}/retry", **_ANSWERS)
def retry(service: ServiceOf, asked: AskedOf, job_id: str, body: models.Retry | None = None) -> Response:
    """Give what stopped the job another chance, or what backs off its next attempt now."""
    given = body or models.Retry()
    made = operators.retry(service.store, job_id, same_key=given.same_key, reason=given.reason, **asked)
    return appended(service, made, dry_run=asked["dry_run"])


@router.post("/jobs/{job_id}/signals/{name:path}", **_ANSWERS)
def signal(service: ServiceOf, asked: AskedOf, job_id: str, name: str, body: models.Signal | None = None) -> Response:
    """Send the job a signal; the Idempotency-Key is the signal's id."""
    given = body or models.Signal()
    made = operators.signal(service.store, job_id, name, given.payload, reason=given.reason, **asked)
    return appended(service, made, dry_run=asked["dry_run"])


@router.post("/jobs/{job_id}/context", **_ANSWERS)
def set_context(service: ServiceOf, asked: AskedOf, job_id: str, body: models.SetContext) -> Response:
    """Change fields of the context."""
    code = definition_of(service, job_id)
    made = operators.set_context(
        service.store, job_id, body.set, unset=body.unset, definition=code, reason=body.reason, **asked
    )
    return appended(service, made, dry_run=asked["dry_run"])


@router.post("/jobs/{job_id}/input", **_ANSWERS)
def edit_input(service: ServiceOf, asked: AskedOf, job_id: str, body: models.EditInput) -> Response:
    """Give a job that is stopped another input."""
    code = definition_of(service, job_id)
    made = operators.edit_input(service.store, job_id, body.input, definition=code, reason=body.reason, **asked)
    return appended(service, made, dry_run=asked["dry_run"])


@router.post("/jobs/{job_id}/fork", **_ANSWERS)
def fork(service: ServiceOf, asked: AskedOf, job_id: str, body: models.Fork | None = None) -> Response:
    """Begin a new job from what this one was, with its context or input edited; the answer is about the new one."""
    given = body or models.Fork()
    edited: dict[str, Any] = {} if given.input is None else {"input": given.input}
    made = forking.fork(
        service.store,
        job_id,
        at=given.at,
        values=given.set,
        unset=given.unset,
        definition=definition_of(service, job_id),
        reason=given.reason,
        **edited,
        **asked,
    )
    return appended(service, made, dry_run=asked["dry_run"])


# --- a sub-step ------------------------------------------------------------------------------------------------------

_OF_SUB_STEP = "/jobs/{job_id}/sub-steps/{phase}/{name:path}"


def _key(phase: str, name: str) -> str:
    return f"{phase}/{name}"


@router.post(f"{_OF_SUB_STEP}/retry", **_ANSWERS)
def retry_sub_step(
    service: ServiceOf, asked: AskedOf, job_id: str, phase: str, name: str, body: models.Retry | None = None
) -> Response:
    """Run the sub-step again, with a new budget of attempts."""
    given = body or models.Retry()
    made = operators.retry(
        service.store, job_id, _key(phase, name), same_key=given.same_key, reason=given.reason, **asked
    )
    return appended(service, made, dry_run=asked["dry_run"])


@router.post(f"{_OF_SUB_STEP}/reset", **_ANSWERS)
def reset_sub_step(
    service: ServiceOf, asked: AskedOf, job_id: str, phase: str, name: str, body: models.Retry | None = None
) -> Response:
    """Put the sub-step back to pending with all that went on from it."""
    given = body or models.Retry()
    made = operators.reset(
        service.store, job_id, _key(phase, name), same_key=given.same_key, reason=given.reason, **asked
    )
    return appended(service, made, dry_run=asked["dry_run"])


@router.post(f"{_OF_SUB_STEP}/complete", **_ANSWERS)
def complete_sub_step(
    service: ServiceOf, asked: AskedOf, job_id: str, phase: str, name: str, body: models.Complete | None = None
) -> Response:
    """Take the sub-step for done, with that result."""
    given = body or models.Complete()
    code = definition_of(service, job_id)
    made = operators.complete(
        service.store, job_id, _key(phase, name), given.result, definition=code, reason=given.reason, **asked
    )
    return appended(service, made, dry_run=asked["dry_run"])


def _by_hand(settle: Callable[..., Appended], summary: str) -> Callable[..., Response]:
    def route(
        service: ServiceOf, asked: AskedOf, job_id: str, phase: str, name: str, body: models.Because | None = None
    ) -> Response:
        made = settle(service.store, job_id, _key(phase, name), reason=_reason(body), **asked)
        return appended(service, made, dry_run=asked["dry_run"])

    route.__doc__ = summary
    route.__name__ = f"{settle.__name__}_sub_step"
    return route


router.post(f"{_OF_SUB_STEP}/skip", **_ANSWERS)(_by_hand(operators.skip, "Do without the sub-step."))
router.post(f"{_OF_SUB_STEP}/fail", **_ANSWERS)(_by_hand(operators.fail, "Take the sub-step for failed."))
