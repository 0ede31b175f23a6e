"""The pages, and what their forms send. Every one works without JavaScript."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version as installed
from itertools import islice
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

import orjson
from fastapi import APIRouter, Depends, Query, Request
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse

from steplog.api.answers import CallerOf, ServiceOf
from steplog.api.pages.actions import carry_out, values_of, words_of
from steplog.api.pages.forms import fields_of, value_of
from steplog.api.pages.job_view import Asked, changed_fields, job_view
from steplog.api.pages.look import seconds, took
from steplog.api.pages.rendering import FOLDER, page, picture
from steplog.api.problems import Problem, not_found, problem_of
from steplog.api.routes.system import readiness, stats
from steplog.api.routes.workflows import definition_named
from steplog.api.schemas import input_schema
from steplog.api.service import Service
from steplog.api.submitting import submit
from steplog.api.timelines import timeline_of
from steplog.engine.fleet import FleetSeen, fleet_seen, stalled_jobs
from steplog.engine.ownership import stalled_among
from steplog.engine.plan import plan_of
from steplog.eventstore.clock import later
from steplog.eventstore.codec import check_name
from steplog.eventstore.errors import SteplogError
from steplog.eventstore.events import CATALOGUE, Event
from steplog.eventstore.store import HeadQuery
from steplog.projections.graph_svg import graph_svg
from steplog.projections.plan import key_of
from steplog.projections.runner import ProjectionRunner, read_statistics
from steplog.projections.state import STOPPED

router = APIRouter(include_in_schema=False)

PAGE_JOBS = 50
PAGE_EVENTS = 200
STALLED_MAX = 100
LOOKED_AT_EVENTS_MAX = 5000
"""How many events one page of the history looks at for those of a type."""
_SINCE = {"": "ever", "1h": "the last hour", "24h": "the last day", "7d": "the last week"}
_SECONDS = {"1h": 3600, "24h": 86400, "7d": 7 * 86400}
_STATUS_ORDER = ("failed", "parked", "paused", "running", "queued", "waiting", "compensating", "completed", "cancelled")


async def form_of(request: Request) -> dict[str, str]:
    """What a form sent."""
    sent = (await request.body()).decode("utf-8", "replace")
    return dict(parse_qsl(sent, keep_blank_values=True, max_num_fields=500))


FormOf = Annotated[dict[str, str], Depends(form_of)]


def root_of(request: Request) -> str:
    """The path that the app is mounted at."""
    return str(request.scope.get("root_path", ""))


def link_of(request: Request) -> Callable[..., str]:
    """Links to the same page with other parameters; None takes one away. A page of a list is its own."""
    given = {name: value for name, value in request.query_params.items() if name not in ("seen", "cursor")}

    def link(**changed: Any) -> str:
        parameters = {name: value for name, value in (given | changed).items() if value not in (None, "")}
        return f"{request.url.path}?{urlencode(parameters)}" if parameters else request.url.path

    return link


# --- jobs ------------------------------------------------------------------------------------------------------------


@router.get("/")
def index(request: Request) -> Response:
    return RedirectResponse(f"{root_of(request)}/jobs", 307)


@router.get("/jobs")
def jobs_page(
    request: Request,
    service: ServiceOf,
    q: Annotated[str, Query(max_length=255)] = "",
    status: str = "",
    workflow: str = "",
    failed_sub_step: str = "",
    tag: str = "",
    since: str = "",
    cursor: Annotated[str, Query(max_length=36)] = "",
) -> Response:
    """Jobs that match, newest first; a search that finds one job goes to it."""
    found = _searched(service, q.strip()) if q.strip() else None
    if found is not None and len(found) == 1:
        return RedirectResponse(f"{root_of(request)}/jobs/{found[0]}", 303)
    name, _, value = tag.partition("=")
    link = link_of(request)

    def make() -> HTMLResponse:
        now = service.store.now()
        query = HeadQuery(
            workflow=_name(workflow),
            status=_name(status),
            failed_sub_step=_name(failed_sub_step),
            tags={name: value} if _name(name) else {},
            since=later(now, -_SECONDS[since]) if since in _SECONDS else None,
            before=cursor or None,
            limit=PAGE_JOBS + 1,
        )
        heads = service.store.heads(query) if found is None else [service.store.head(job_id) for job_id in found]
        counted = stats(service)
        return page(
            request, "jobs.html",
            heads=[service.jobs.shown_head(head) for head in heads[:PAGE_JOBS]],
            older=heads[PAGE_JOBS - 1].job_id if len(heads) > PAGE_JOBS else None,
            stalled=stalled_among(service.store, heads),
            counts=[(each, counted["jobs"][each]) for each in _STATUS_ORDER if each in counted["jobs"]],
            total=sum(counted["jobs"].values()),
            workflows=sorted({*counted["workflows"], *service.jobs.definitions}),
            query=query, tag=tag, since=since, sinces=list(_SINCE.items()), q=q,
            filtered=bool(status or workflow or failed_sub_step or tag or since or q),
            link=link, here=link(cursor=cursor), now=now,
        )  # fmt: skip

    return service.shared.page(request, make)


def _searched(service: Service, text: str) -> list[str]:
    """Jobs with that key, or whose id ends so."""
    by_key = service.store.job_of_key(None, text) if _name(text) else []
    suffix = text.removeprefix("…").lower()
    is_suffix = len(suffix) >= 4 and set(suffix) <= set("0123456789abcdef-")
    return (by_key or (service.store.find(suffix, PAGE_JOBS) if is_suffix else []))[:PAGE_JOBS]


def _name(text: str) -> str | None:
    """A name to look for; what could be none finds nothing, and breaks nothing."""
    return check_name(text, "filter") if text else None


@router.get("/jobs/{job_id}")
def job_page(
    request: Request,
    service: ServiceOf,
    job_id: str,
    at: Annotated[str, Query(max_length=40)] = "",
    step: Annotated[str, Query(max_length=600)] = "",
    since: Annotated[str, Query(max_length=19)] = "",
) -> Response:
    """The job, now or as it was."""

    def make() -> HTMLResponse:
        look = service.store.look_at(job_id)
        asked = Asked(
            service.jobs.version(look.head, at) if at else None,
            step or None,
            service.jobs.version(look.head, since) if since else None,
        )
        view = job_view(service, look, asked)
        link = link_of(request)
        return page(
            request, "job.html",
            view=view, picture=picture(view.timeline) if view.timeline else None, changed=changed_fields(view),
            link=link, here=link(), asked_step=step,
        )  # fmt: skip

    return service.shared.page(request, make)


@router.get("/jobs/{job_id}/timeline")
def timeline_part(service: ServiceOf, job_id: str) -> Response:
    """The timeline of a long job, for its page."""
    drawn = picture(timeline_of(service, service.store.head(job_id), None))
    return HTMLResponse(Markup('<div class="picture" tabindex="0">{}</div>').format(drawn))


@router.get("/jobs/{job_id}/events")
def events_page(
    request: Request,
    service: ServiceOf,
    job_id: str,
    before: Annotated[int, Query(ge=1)] = 2**62,
    type: str = "",
) -> Response:
    """The history, the latest first, of one type or all."""
    head = service.store.head(job_id)
    until, found, looked_at = min(before - 1, head.version), list[Event](), 0
    while until > 0 and len(found) < PAGE_EVENTS and looked_at < LOOKED_AT_EVENTS_MAX:
        read = list(service.store.read(job_id, max(0, until - PAGE_EVENTS), until))
        found += [event for event in reversed(read) if not type or event.type == type]
        until, looked_at = until - len(read), looked_at + len(read)
    shown = found[:PAGE_EVENTS]
    older = shown[-1].version if len(found) > PAGE_EVENTS else until + 1
    return page(
        request, "events.html",
        job_id=job_id, workflow=head.columns.workflow, type=type, types=sorted(CATALOGUE),
        events=service.jobs.shown_events(head.columns.workflow, shown, service.jobs.secrets_of(head)),
        older=older if older > 1 else None,
    )  # fmt: skip


@router.get("/jobs/{job_id}/events.jsonl")
def download_events(service: ServiceOf, job_id: str) -> Response:
    """The whole history as lines of JSON."""
    head = service.store.head(job_id)
    secrets = service.jobs.secrets_of(head)

    def lines() -> Iterator[bytes]:
        for event in service.store.read(job_id, 0, head.version):
            yield orjson.dumps(service.jobs.shown_events(head.columns.workflow, [event], secrets)[0]) + b"\n"

    headers = {"Content-Disposition": f'attachment; filename="{job_id}.jsonl"'}
    return StreamingResponse(lines(), media_type="application/jsonl", headers=headers)


# --- doing something -------------------------------------------------------------------------------------------------


@router.get("/jobs/{job_id}/do/{action}")
def confirm_page(
    request: Request,
    service: ServiceOf,
    caller: CallerOf,
    job_id: str,
    action: str,
    sub_step: Annotated[str, Query(max_length=600)] = "",
) -> Response:
    """What an action would do, and the button that does it."""
    return _confirm(request, service, caller.name, job_id, action, sub_step or None, {}, None)


def _confirm(
    request: Request,
    service: Service,
    by: str,
    job_id: str,
    action: str,
    sub_step: str | None,
    form: dict[str, str],
    problem: Problem | None,
) -> Response:
    words = words_of(action, sub_step)
    if words is None:
        raise not_found(f"there is no action {action[:60]!r}")
    head = service.store.head(job_id)
    would: list[tuple[str, Any]] = []
    if problem is None and not any(field.kind in ("json", "text") for field in words.fields):
        how = {"by": by, "dry_run": True}
        code = service.jobs.definitions.get(head.columns.workflow)
        try:
            made = carry_out(service.store, job_id, action, sub_step, values_of(words.fields, form), code, how)
            would = [(event.type(), event.as_data()) for event in made.events]
        except (SteplogError, Problem) as error:
            problem = problem_of(error)
    state = service.jobs.of_head(head)
    masks, secrets = service.jobs.masks(state["workflow"]), service.jobs.secrets(state)
    return page(
        request, "confirm.html",
        status=problem.status if problem else 200,
        words=words, action=action, sub_step=sub_step, problem=problem, form=form, request_id=uuid4().hex,
        job_id=job_id, workflow=head.columns.workflow, key=head.columns.key, version=head.version,
        job_status=head.columns.status,
        would=[(type, masks.data(type, data, secrets)) for type, data in would],
    )  # fmt: skip


@router.post("/jobs/{job_id}/do/{action}")
async def do(
    request: Request, service: ServiceOf, caller: CallerOf, form: FormOf, job_id: str, action: str
) -> Response:
    """Do it, and show the job; or show why not."""
    return await run_in_threadpool(_do, request, service, caller.name, form, job_id, action)


def _do(request: Request, service: Service, by: str, form: dict[str, str], job_id: str, action: str) -> Response:
    sub_step = form.get("sub_step") or None
    words = words_of(action, sub_step)
    if words is None:
        raise not_found(f"there is no action {action[:60]!r}")
    code = service.jobs.definitions.get(service.store.head(job_id).columns.workflow)
    how: dict[str, Any] = {"by": by, "reason": form.get("reason") or None, "request_id": form.get("request_id") or None}
    try:
        made = carry_out(service.store, job_id, action, sub_step, values_of(words.fields, form), code, how)
    except (SteplogError, Problem) as error:
        return _confirm(request, service, by, job_id, action, sub_step, form, problem_of(error))
    return RedirectResponse(f"{root_of(request)}/jobs/{made.state['job_id']}", 303)


# --- workflows -------------------------------------------------------------------------------------------------------


@router.get("/workflows")
def workflows_page(request: Request, service: ServiceOf) -> Response:
    """Every workflow that is known here or has jobs."""
    counted = service.store.counts()
    rows = []
    for name in sorted({*counted, *service.jobs.definitions}):
        definition = service.jobs.definitions.get(name)
        rows.append(
            {
                "name": name,
                "plan": plan_of(definition) if definition else None,
                "sub_steps": len(definition.sub_steps) if definition else 0,
                "counts": counted.get(name, {}),
            }
        )
    return page(request, "workflows.html", rows=rows)


@router.get("/workflows/{name:path}")
def workflow_page(request: Request, service: ServiceOf, name: str) -> Response:
    """The workflow's graph, figures, and a form that submits a job."""
    return _workflow(request, service, name, {}, None)


@router.post("/workflows/{name:path}")
async def submit_form(request: Request, service: ServiceOf, form: FormOf, name: str) -> Response:
    """Submit a job, and show it; or show what does not fit."""
    return await run_in_threadpool(_submit, request, service, form, name)


def _submit(request: Request, service: Service, form: dict[str, str], name: str) -> Response:
    definition = definition_named(service, name)
    try:
        input = value_of(fields_of(input_schema(definition), form), form)
        submitted = submit(service.store, definition, input, key=form.get("key") or form.get("request_id") or None)
    except (SteplogError, Problem) as error:
        return _workflow(request, service, name, form, problem_of(error))
    return RedirectResponse(f"{root_of(request)}/jobs/{submitted.job_id}", 303)


def _workflow(request: Request, service: Service, name: str, form: dict[str, str], problem: Problem | None) -> Response:
    definition = definition_named(service, name)
    plan = plan_of(definition)
    return page(
        request, "workflow.html",
        status=problem.status if problem else 200,
        name=name, version=definition.version, plan=plan, graph=Markup(graph_svg(plan)),  # escaped there
        counts=service.store.counts().get(name, {}), figures=_figures(service, name), policies=_policies,
        fields=fields_of(input_schema(definition), form), form=form, problem=problem, request_id=uuid4().hex,
    )  # fmt: skip


def _figures(service: Service, workflow: str) -> dict[str, dict[str, str]]:
    """How often and how long each sub-step ran, as a person reads it; by key."""
    return {
        key_of(each.phase, each.sub_step): {
            "runs": str(each.attempts),
            "failed": str(each.failed or ""),
            "rate": f"{each.failed} ({each.failure_rate:.0%})" if each.failed and each.failure_rate else "",
            "p50": seconds(each.p50_s),
            "p95": seconds(each.p95_s),
        }
        for each in read_statistics(service.store, workflow)
    }


def _policies(step: dict[str, Any]) -> str:
    """A sub-step's policies in a few words."""
    parts = [
        f"{step['retry']['attempts']} attempts" if step["retry"]["attempts"] > 1 else "",
        "optional" if step["optional"] else "",
        "conditional" if step["when"] else "",
        f"timeout {step['timeout_s']:g}s" if step.get("timeout_s") else "",
        f"waits for {step['wait'].get('signal') or 'time'}" if step.get("wait") else "",
        f"{step['on_interrupt']} when interrupted" if step["on_interrupt"] != "retry" else "",
    ]
    return ", ".join(part for part in parts if part)


# --- the system ------------------------------------------------------------------------------------------------------


@router.get("/system")
def system_page(request: Request, service: ServiceOf) -> Response:
    """The store, its workers, and the jobs that stand still."""
    fleet = fleet_seen(service.store)
    stopped = [
        service.jobs.shown_head(head)
        for status in sorted(STOPPED)
        for head in service.store.heads(HeadQuery(status=status, limit=20))
    ]
    return page(
        request, "system.html",
        url=service.store.url, checks=readiness(service), version=installed("steplog"),
        stalled=list(islice(stalled_jobs(service.store), STALLED_MAX)), stopped=stopped, workers=fleet.workers,
        now=fleet.now, figures=_system_figures(service, fleet), here=request.url.path,
    )  # fmt: skip


def _system_figures(service: Service, fleet: FleetSeen) -> list[tuple[str, str]]:
    """What else there is to say of the store and of this server."""
    oldest = fleet.oldest_ready.columns.wake_at if fleet.oldest_ready else None
    lags = ProjectionRunner(service.store).lags_s()
    behind = {
        name: "not built yet" if lag_s is None else f"{seconds(lag_s)} behind" if lag_s else "current"
        for name, lag_s in lags.items()
    }
    return [
        ("Oldest job due", f"for {took(oldest, fleet.now)}" if oldest else "none waits"),
        ("Appends", _append_rate(service)),
        *((f"Projection {name}", said) for name, said in behind.items()),
        ("Clients that follow", str(service.changes.listeners)),
    ]


def _append_rate(service: Service) -> str:
    """How fast events come, as far as this server has listened."""
    rate = service.changes.events_per_s
    return "not measured: nobody follows" if rate is None else f"{rate:.1f} events/s"


# --- files -----------------------------------------------------------------------------------------------------------

_STATIC = {
    "dashboard.css": "text/css", "dashboard.js": "text/javascript", "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml", "htmx.license.txt": "text/plain",
}  # fmt: skip


@router.get("/static/{name}")
def static_file(name: str) -> Response:
    """One of the few files that pages use."""
    if name not in _STATIC:
        raise not_found(f"there is no file {name[:60]!r}")
    return FileResponse(
        FOLDER / "static" / name, media_type=_STATIC[name], headers={"Cache-Control": "public, max-age=300"}
    )
