"""The items of a fan-out, a page at a time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from steplog.api import models
from steplog.api.answers import ServiceOf, answer, caching_of, etag, not_modified, problems
from steplog.api.items import page_of_items
from steplog.api.routes.jobs import At, JobId
from steplog.api.settings import API
from steplog.projections.plan import key_of
from steplog.projections.state import SubStepStatus

router = APIRouter(prefix=API, tags=["jobs"])

LIMIT_MAX = 500


@router.get(
    "/jobs/{job_id}/sub-steps/{phase}/{name:path}/items",
    response_model=models.ItemPage,
    responses=problems(304, 404, 500),
)
def list_items(
    request: Request,
    service: ServiceOf,
    job_id: JobId,
    phase: str,
    name: str,
    status: SubStepStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
    cursor: Annotated[str | None, Query(max_length=255, description="The item to go on behind.")] = None,
    at: At = None,
) -> Response:
    """Items of a fan-out in their order, of one status or all; now, or as they were."""
    head = service.store.head(job_id)
    version = service.jobs.version(head, at) if at else head.version
    caching = caching_of(at, version, head)
    if known := not_modified(request, version, caching):
        return known
    state = service.jobs.at(job_id, version) if at else service.jobs.of_head(head)
    found = page_of_items(service, state, key_of(phase, name), status=status, after=cursor, limit=limit)
    more = found.next_cursor
    links = {"Link": f'<{request.url.include_query_params(cursor=more)}>; rel="next"'} if more else {}
    document = {"items": found.items, "next_cursor": more, "counts": found.counts._asdict()}
    return answer(document, headers={"ETag": etag(state["version"]), "Cache-Control": caching, **links})
