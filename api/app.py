"""The app: the routes of the API and the pages behind the guard, over one store. `asgi` is what users mount."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from steplog.api import models
from steplog.api.changes import Changes
from steplog.api.durations import Durations
from steplog.api.guard import Guard
from steplog.api.jobs import Jobs
from steplog.api.messages import Messages
from steplog.api.pages import items as items_page
from steplog.api.pages import login
from steplog.api.pages import routes as pages
from steplog.api.pages.rendering import page
from steplog.api.problems import Problem, invalid, problem_of
from steplog.api.routes import items, jobs, operating, recording, streams, system, workflows
from steplog.api.service import Service
from steplog.api.settings import API, ApiSettings
from steplog.api.sharing import SharedPages
from steplog.api.tokens import Token
from steplog.api.watching import Watched
from steplog.engine.config import read_config
from steplog.engine.lookup import declared_workflows
from steplog.eventstore.connect import open_store
from steplog.eventstore.errors import SteplogError
from steplog.eventstore.store import Store

_OF_API = (
    jobs.router,
    items.router,
    streams.router,
    operating.router,
    recording.router,
    workflows.router,
    system.router,
)
LOCAL_NAME = "local"
"""Who did it, in the log, where no token says."""

_log = logging.getLogger("steplog.api")
_log.addHandler(logging.NullHandler())


def asgi(
    store: Store | str | None = None,
    *,
    modules: Iterable[str] = (),
    tokens: Sequence[Token] = (),
    hosts: Iterable[str] = (),
    read_only: bool = False,
) -> FastAPI:
    """The status API and the dashboard as an ASGI app, to be served or mounted.

    `store` is a store or its URL; without it the one that the CLI would use. Without tokens, requests have to be
    addressed to this machine's loopback names, or to one of `hosts`. Raises ModuleMissing, ModuleFails,
    DeclaredTwice, StoreError.
    """
    settings = ApiSettings(
        modules=tuple(modules), tokens=tuple(tokens), hosts=frozenset(map(str.lower, hosts)), read_only=read_only
    )
    return create_app(store, settings)


class _App(FastAPI):
    """The app, whose description knows what every problem looks like."""

    def openapi(self) -> dict[str, Any]:
        described = super().openapi()
        schemas = described.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("ProblemDocument", models.ProblemDocument.model_json_schema())
        return described


def create_app(store: Store | str | None, settings: ApiSettings, local_name: str = LOCAL_NAME) -> FastAPI:
    """The app with all its settings."""
    service = service_for(store, settings)
    app = _App(
        title="steplog",
        version=version("steplog"),
        summary="Jobs as their logs tell them.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.service = service
    for router in (*_OF_API, system.probes, login.router, pages.router, items_page.router):
        app.include_router(router)
    _tell_problems(app)
    app.add_middleware(Guard, settings=settings, local_name=local_name)
    app.add_middleware(Watched, durations=service.durations)
    return app


def service_for(store: Store | str | None, settings: ApiSettings) -> Service:
    """What the app stands on, for a store or its URL."""
    config = read_config(modules=tuple(settings.modules))
    opened = open_store(store or str(config.database_url.value)) if isinstance(store, str | None) else store
    jobs = Jobs(opened, declared_workflows(config.modules.value))
    return Service(
        store=opened,
        jobs=jobs,
        changes=Changes(opened, listeners_max=settings.clients_max, batches_max=settings.client_events_max),
        settings=settings,
        durations=Durations(),
        shared=SharedPages(),
        messages=Messages(jobs),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.service.changes.close()


# --- errors ----------------------------------------------------------------------------------------------------------


def _tell_problems(app: FastAPI) -> None:
    """Every error is a problem: ours, the framework's, and those that nobody foresaw."""

    async def ours(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.status >= 500:
            _log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        return _told(request, problem)

    for kind in (Problem, SteplogError, Exception):
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _of_framework)


def _told(request: Request, problem: Problem) -> Response:
    """A page for a person who looks at pages, a document for everybody else."""
    is_page = "text/html" in request.headers.get("accept", "") and f"{API}/" not in request.url.path
    return page(request, "problem.html", status=problem.status, problem=problem) if is_page else problem.response()


async def _not_valid(request: Request, error: Exception) -> Response:
    """What does not fit the schema, field by field; never what was sent, which may be secret."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"at": ".".join(str(part) for part in each["loc"])[:200], "why": str(each["msg"])[:300]}
        for each in error.errors()[:20]
    ]
    return _told(request, invalid("the request is not what the schema says: see errors", errors=errors))


async def _of_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, Problem):
        return _told(request, error.__cause__)
    if error.status_code == 400:
        return _told(request, invalid("the body is no JSON that can be read: too deep, or not UTF-8"))
    kinds = {404: "not-found", 405: "method-not-allowed"}
    told = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} cannot be done there"}
    detail = told.get(error.status_code, str(error.detail))
    kind = kinds.get(error.status_code, "refused")
    return _told(request, Problem(error.status_code, kind, detail, hint="see /openapi.json", headers=error.headers))
