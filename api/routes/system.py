"""How the server and its store are: health, readiness, figures for Prometheus, workers, counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from steplog.api import models
from steplog.api.answers import ServiceOf, answer, problems
from steplog.api.metrics import exposition
from steplog.api.problems import Problem
from steplog.api.service import Service
from steplog.api.settings import API
from steplog.eventstore.errors import StoreError
from steplog.eventstore.store import Worker
from steplog.projections.runner import ProjectionRunner, read_statistics
from steplog.projections.timeline_axis import time_label

probes = APIRouter(tags=["system"])
router = APIRouter(prefix=API, tags=["system"])


@probes.get("/healthz", response_model=models.Health)
def get_health() -> Response:
    """The process is up."""
    return answer({"status": "ok"})


@probes.get("/readyz", response_model=models.Readiness, responses={503: problems(503)[503]})
def get_readiness(service: ServiceOf) -> Response:
    """The store can be reached and is up to date; a problem that names each failed check where it is not."""
    checks = readiness(service)
    failed = {name: said for name, said in checks.items() if said != "ok"}
    if failed:
        raise Problem(503, "not-ready", f"not ready: {', '.join(failed)}", failed=failed, headers={"Retry-After": "5"})
    return answer({"status": "ready", "checks": checks})


def readiness(service: Service) -> dict[str, str]:
    """Each check, `ok` or what is wrong in a word; nothing of where the store is."""
    try:
        pending = service.store.migrate(dry_run=True)
    except StoreError as error:
        return {"store": f"unreachable ({type(error).__name__})"}
    if pending:
        return {"store": "ok", "schema": f"lacks {len(pending)} migrations"}
    return {"store": "ok", "schema": "ok", "projections": _projections(service)}


def _projections(service: Service) -> str:
    """Whether the projections that were built keep up."""
    lags = ProjectionRunner(service.store).lags_s()
    late = {name: lag_s for name, lag_s in lags.items() if lag_s and lag_s > service.settings.lag_s_max}
    return "; ".join(f"{name} is {time_label(lag_s)} behind" for name, lag_s in late.items()) or "ok"


@probes.get("/metrics", response_class=PlainTextResponse, responses=problems())
def get_metrics(service: ServiceOf) -> Response:
    """Figures in Prometheus' text form."""
    return PlainTextResponse(exposition(service), media_type="text/plain; version=0.0.4")


@router.get("/stats", response_model=models.Stats, responses=problems())
def get_stats(service: ServiceOf) -> Response:
    """How many jobs there are in each status, and how often and how long each sub-step ran."""
    found = [asdict(each) for each in read_statistics(service.store)]
    return answer({**stats(service), "sub_steps": found})


def stats(service: Service) -> dict[str, Any]:
    """Counts by status, in all and by workflow."""
    by_workflow = service.store.counts()
    statuses: dict[str, int] = {}
    for counts in by_workflow.values():
        for status, count in counts.items():
            statuses[status] = statuses.get(status, 0) + count
    oldest = next(iter(service.store.longest_ready(1)), None)
    return {
        "jobs": statuses,
        "workflows": by_workflow,
        "oldest_ready_at": oldest.columns.wake_at if oldest else None,
        "listeners": service.changes.listeners,
    }


@router.get("/workers", response_model=models.WorkerList, responses=problems())
def list_workers(service: ServiceOf) -> Response:
    """Workers and their leases, newest first."""
    return answer({"items": [_worker(worker) for worker in service.store.workers()[:1000]]})


def _worker(worker: Worker) -> dict[str, Any]:
    who = worker.identity
    return {
        "worker_id": who.worker_id,
        "host": who.host,
        "pid": who.pid,
        "state": worker.state,
        "started_at": worker.started_at,
        "expires_at": worker.expires_at,
    }
