"""Reading jobs: lists, the snapshot now and as it was, the resume point, the timeline, what changed, the history."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from steplog.api import models
from steplog.api.answers import ASK_AGAIN, ServiceOf, answer, caching_of, etag, not_modified, problems
from steplog.api.jobs import parsed_instant
from steplog.api.problems import invalid
from steplog.api.service import Service
from steplog.api.settings import API
from steplog.api.timelines import svg_headers, timeline_of
from steplog.engine.allowed import allowed_actions
from steplog.eventstore.codec import check_name
from steplog.eventstore.store import Head, HeadQuery
from steplog.projections.diff import changes, patch
from steplog.projections.documents import head_document
from steplog.projections.resume_point import resume_point
from steplog.projections.snapshot import snapshot
from steplog.projections.state import JobStatus, State
from steplog.projections.timeline import Timeline
from steplog.projections.timeline_svg import timeline_svg

router = APIRouter(prefix=API, tags=["jobs"])

Name = Annotated[str | None, Query(min_length=1, max_length=255)]
At = Annotated[str | None, Query(max_length=40, description="A version, or an RFC 3339 time.", examples=["12"])]
JobId = str


@router.get("/jobs", response_model=models.JobPage, responses=problems())
def list_jobs(
    request: Request,
    service: ServiceOf,
    workflow: Name = None,
    status: JobStatus | None = None,
    phase: Name = None,
    key: Name = None,
    failed_sub_step: Name = None,
    tag: Annotated[list[str], Query(max_length=16, description="k=v; all must match.")] = [],  # noqa: B006
    since: Annotated[str | None, Query(max_length=40, description="Created at that time or later.")] = None,
    limit: int = 50,
    cursor: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """Jobs that match, newest first."""
    if not 1 <= limit <= service.settings.page_jobs_max:
        raise invalid(f"a page has 1 to {service.settings.page_jobs_max} jobs", parameter="limit")
    names = {"workflow": workflow, "phase": phase, "key": key, "failed_sub_step": failed_sub_step}
    for what, name in names.items():
        if name is not None:
            check_name(name, what)
    query = HeadQuery(
        status=status,
        tags=dict(_tag(each) for each in tag),
        since=parsed_instant(since) if since else None,
        before=_job_id(cursor) if cursor else None,
        limit=limit + 1,
        **names,
    )
    heads = service.store.heads(query)
    more = heads[limit - 1].job_id if len(heads) > limit else None
    links = {"Link": f'<{request.url.include_query_params(cursor=more)}>; rel="next"'} if more else {}
    shown = [head_document(service.jobs.shown_head(head)) for head in heads[:limit]]
    return answer({"items": shown, "next_cursor": more}, headers=links)


@router.get("/jobs/{job_id}", response_model=models.Snapshot, responses=problems(304, 404, 429, 500))
async def get_job(
    request: Request,
    service: ServiceOf,
    job_id: JobId,
    at: At = None,
    wait: Annotated[float, Query(ge=0, description="Seconds to wait for a version behind `since`.")] = 0.0,
    since: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """The job's snapshot, now or as it was; with `wait` once it has moved on from version `since`."""
    if wait and since is not None and at is None:
        await _moved_on(service, job_id, since, min(wait, service.settings.wait_s_max))
    return await run_in_threadpool(_snapshot, request, service, job_id, at)


async def _moved_on(service: Service, job_id: str, since: int, wait_s: float) -> None:
    """Return when the job is behind that version, or when the time is over."""
    until = asyncio.get_running_loop().time() + wait_s
    async with service.changes.listening(job_id) as listener:
        version = (await run_in_threadpool(service.store.head, job_id)).version
        while version <= since and (left_s := until - asyncio.get_running_loop().time()) > 0:
            batch = await listener.next(left_s)
            if listener.is_dropped:
                return
            version = max([version, *(entry.version for entry in batch.entries)]) if batch else version


def _snapshot(request: Request, service: Service, job_id: str, at: str | None) -> Response:
    state, caching, found = _asked_for(request, service, job_id, at)
    if found is not None or state is None:
        return found or Response(status_code=304)
    document = service.jobs.masks(state["workflow"]).snapshot(snapshot(state))
    if not at:
        document["allowed_actions"] = allowed_actions(state)
    return answer(document, headers={"ETag": etag(state["version"]), "Cache-Control": caching})


def _asked_for(
    request: Request, service: Service, job_id: str, at: str | None
) -> tuple[State | None, str, Response | None]:
    """The job's state, how long an answer made of it holds, or the answer that the client has it already."""
    head = service.store.head(job_id)
    version = service.jobs.version(head, at) if at else head.version
    caching = caching_of(at, version, head)
    if known := not_modified(request, version, caching):
        return None, caching, known
    return service.jobs.at(job_id, version) if at else service.jobs.of_head(head), caching, None


@router.get("/jobs/{job_id}/resume-point", response_model=models.ResumePoint, responses=problems(304, 404, 500))
def get_resume_point(request: Request, service: ServiceOf, job_id: JobId, at: At = None) -> Response:
    """What would run next, and why, and with which context."""
    state, caching, found = _asked_for(request, service, job_id, at)
    if state is None:
        return found or Response(status_code=304)
    document = service.jobs.masks(state["workflow"]).snapshot(resume_point(state))
    return answer(document, headers={"ETag": etag(state["version"]), "Cache-Control": caching})


@router.get("/jobs/{job_id}/timeline", response_model=Timeline, responses=problems(404, 500))
def get_timeline(service: ServiceOf, job_id: JobId, at: At = None) -> Response:
    """Attempts, waits, marks and gaps as spans of time."""
    head = service.store.head(job_id)
    version = service.jobs.version(head, at) if at else None
    found = timeline_of(service, head, version)
    headers = {"ETag": etag(found["version"]), "Cache-Control": caching_of(at, found["version"], head)}
    return answer(found, headers=headers)


@router.get(
    "/jobs/{job_id}/timeline.svg",
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}}}, **problems(404, 500)},
)
def get_timeline_picture(service: ServiceOf, job_id: JobId, at: At = None) -> Response:
    """The timeline as a picture that needs nothing else."""
    head = service.store.head(job_id)
    version = service.jobs.version(head, at) if at else None
    found = timeline_of(service, head, version)
    return Response(
        timeline_svg(found),
        headers=svg_headers(found, caching_of(at, found["version"], head)),
        media_type="image/svg+xml",
    )


@router.get("/jobs/{job_id}/diff", response_model=list[models.PatchOperation], responses=problems(404, 500))
def get_diff(
    service: ServiceOf,
    job_id: JobId,
    start: Annotated[str, Query(alias="from", max_length=40, description="A version or a time.", examples=["1"])],
    end: Annotated[str | None, Query(alias="to", max_length=40, description="Now unless given.")] = None,
) -> Response:
    """What changed, as a JSON patch (RFC 6902) that makes the snapshot at `from` the one at `to`."""
    head = service.store.head(job_id)
    before = _shown(service, head, start)
    after = _shown(service, head, end or str(head.version))
    return answer(patch(changes(before, after)))


def _shown(service: Service, head: Head, at: str) -> dict[str, Any]:
    state = service.jobs.at(head.job_id, service.jobs.version(head, at))
    return service.jobs.masks(state["workflow"]).snapshot(snapshot(state))


@router.get("/jobs/{job_id}/events", response_model=models.EventPage, responses=problems(404, 500))
def list_events(
    service: ServiceOf,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    limit: int = 100,
    type: Annotated[list[str], Query(max_length=64, description="Only events of these types.")] = [],  # noqa: B006
) -> Response:
    """A page of the job's history: events behind a version, in order."""
    if not 1 <= limit <= service.settings.page_events_max:
        raise invalid(f"a page has 1 to {service.settings.page_events_max} events", parameter="limit")
    head = service.store.head(job_id)
    until = min(after + limit, head.version)
    events = list(service.store.read(job_id, after, until)) if after < until else []
    shown = [event for event in events if not type or event.type in type]
    secrets = () if not shown else service.jobs.secrets_of(head)
    document = {
        "items": service.jobs.shown_events(head.columns.workflow, shown, secrets),
        "next_after": until if until < head.version and events else None,
    }
    return answer(document, headers={"ETag": etag(head.version), "Cache-Control": ASK_AGAIN})


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or len(text) > 1000 or "\x00" in text:
        raise invalid(f"{text[:60]!r} is not k=v", parameter="tag")
    return name, value


def _job_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise invalid(f"{text[:60]!r} is no cursor", parameter="cursor") from None
