"""The page of a fan-out's items: some of them at a time, of one status or all."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from steplog.api.answers import ServiceOf
from steplog.api.items import page_of_items
from steplog.api.pages.rendering import page
from steplog.eventstore.codec import check_name

router = APIRouter(include_in_schema=False)

PAGE_ITEMS = 100


@router.get("/jobs/{job_id}/items")
def items_page(
    request: Request,
    service: ServiceOf,
    job_id: str,
    step: Annotated[str, Query(max_length=600)],
    status: Annotated[str, Query(max_length=20)] = "",
    after: Annotated[str, Query(max_length=255)] = "",
    at: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Items in their order, now or as they were."""
    head = service.store.head(job_id)
    state = service.jobs.at(job_id, service.jobs.version(head, at)) if at else service.jobs.of_head(head)
    wanted = check_name(status, "status") if status else None
    found = page_of_items(service, state, step, status=wanted, after=after or None, limit=PAGE_ITEMS)
    return page(
        request, "items.html",
        job_id=job_id, workflow=state["workflow"], step=step, at=at, version=state["version"], last=head.version,
        chosen=status, counts=found.counts, items=found.items, next=found.next_cursor, begun=bool(after),
    )  # fmt: skip
