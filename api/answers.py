"""How answers are written: JSON made once, ETags of versions, what a request says about the version it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

import orjson
from fastapi import Depends, Request
from starlette.responses import Response

from steplog.api.guard import Caller
from steplog.api.problems import MEDIA_TYPE, Problem
from steplog.api.service import Service
from steplog.eventstore.sealed import hidden
from steplog.eventstore.store import Head

PAST_IS_FOR_EVER = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"


def service_of(request: Request) -> Service:
    """What the app stands on."""
    return cast("Service", request.app.state.service)


def caller_of(request: Request) -> Caller:
    """Who sent the request, as the guard found out."""
    return cast("Caller", request.state.caller)


ServiceOf = Annotated[Service, Depends(service_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as JSON, without what is sealed in it."""
    return Response(orjson.dumps(hidden(document)), status, headers, "application/json")


def etag(version: int) -> str:
    """The ETag of a job's version."""
    return f'"v{version}"'


def caching_of(at: str | None, version: int, head: Head) -> str:
    """How long an answer holds that shows a version as what was asked for: a time names another once events come."""
    if not at or (version == head.version and not at.isdecimal()):
        return ASK_AGAIN
    return PAST_IS_FOR_EVER


def not_modified(request: Request, version: int, caching: str) -> Response | None:
    """304 where the client has that version already."""
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if etag(version) in known or "*" in known:
        return Response(status_code=304, headers={"ETag": etag(version), "Cache-Control": caching})
    return None


def expected_version(request: Request) -> int | None:
    """The version that If-Match names. Raises Problem where it is none."""
    given = request.headers.get("if-match", "*").strip()
    if given == "*":
        return None
    number = given.removeprefix("W/").removeprefix('"v').removesuffix('"')
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise Problem(412, "version-changed", f"{given[:60]!r} is no version of a job", hint='send the ETag: "v27"')
    return int(number)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How OpenAPI tells of the problems that a route answers with."""
    reference = {"$ref": "#/components/schemas/ProblemDocument"}
    told = {
        304: "not modified", 401: "no token, or a wrong one", 403: "the token lacks the scope",
        404: "not found", 409: "the job's state does not allow it", 412: "the job has moved on",
        413: "too large", 422: "not what the schema says", 429: "too many at once",
        500: "the log is damaged", 503: "the store cannot be reached",
    }  # fmt: skip
    return {
        status: {"description": told[status], "content": {MEDIA_TYPE: {"schema": reference}}}
        for status in (401, 403, 422, 503, *statuses)
    }
