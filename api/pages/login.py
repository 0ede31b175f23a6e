"""Coming in with a token from a browser: the cookie is set and taken away here."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from steplog.api.answers import ServiceOf
from steplog.api.pages.rendering import page
from steplog.api.pages.routes import FormOf, root_of
from steplog.api.tokens import COOKIE, COOKIE_SECONDS, cookie_of, token_of_secret

router = APIRouter(include_in_schema=False)


@router.get("/login")
def login_page(request: Request) -> Response:
    """Asks for a token."""
    return page(request, "login.html", wrong=False)


@router.post("/login")
async def log_in(request: Request, service: ServiceOf, form: FormOf) -> Response:
    """Set the cookie for a token that may read."""
    token = token_of_secret(service.settings.tokens, form.get("token", "").strip())
    if token is None or "read" not in token.scopes:
        return page(request, "login.html", status=403, wrong=True)
    answer = RedirectResponse(f"{root_of(request)}/jobs", 303)
    answer.set_cookie(
        COOKIE,
        cookie_of(token, time.time()),
        max_age=COOKIE_SECONDS,
        path=root_of(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Take the cookie away."""
    answer = RedirectResponse(f"{root_of(request)}/login", 303)
    answer.delete_cookie(COOKIE, path=root_of(request) or "/")
    return answer
