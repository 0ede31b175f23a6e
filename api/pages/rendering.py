"""From a template and what it looks at to a page: everything in it is escaped unless it was made as markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from steplog.api.pages import look
from steplog.api.pages.forms import FormField
from steplog.api.pages.history import TONES, words_of
from steplog.eventstore.events import CATALOGUE
from steplog.projections.timeline import Timeline
from steplog.projections.timeline_svg import timeline_svg

FOLDER = Path(__file__).parent
_STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
_BETWEEN_TAGS = re.compile(r">\s*\n\s*<")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=look.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        mark=look.mark, took=look.took, seconds=look.seconds, ago=look.ago, clock=look.clock, json_of=look.json_of,
        short=look.short, error_of=look.error_of, percent=look.percent, id_of=look.id_of, words_of=words_of,
        words=words_of, tones=TONES, max=max, min=min, event_types=" ".join(CATALOGUE), form_field=_form_field,
    )  # fmt: skip
    return environment


def _form_field(field: FormField) -> Markup:
    return Markup(_ENVIRONMENT.get_template("field.html").render(field=field))  # rendered with escaping


_ENVIRONMENT = _environment()


def page(request: Request, template: str, *, status: int = 200, **seen: Any) -> HTMLResponse:
    """A page as an answer."""
    root = request.scope.get("root_path", "")
    caller = getattr(request.state, "caller", None)
    asked = request.url.path[len(root) :] if root and request.url.path.startswith(root) else request.url.path
    given = {"root": root, "caller": caller, "page": asked.strip("/").partition("/")[0], "q": "", **seen}
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(given), status)


def picture(timeline: Timeline) -> Markup:
    """The timeline for a page: without its own style sheet, for the page's colours it."""
    return Markup(_STYLE.sub("", timeline_svg(timeline), count=1))  # every text in it is escaped
