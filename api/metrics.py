"""Figures in Prometheus' text form; never a job's id as a label."""

from __future__ import annotations

from collections.abc import Iterator

from steplog.api.durations import label
from steplog.api.service import Service
from steplog.engine.fleet import fleet_seen
from steplog.projections.runner import ProjectionRunner


def exposition(service: Service) -> str:
    """Everything that Prometheus is told."""
    return "".join(f"{line}\n" for line in _lines(service))


def _lines(service: Service) -> Iterator[str]:
    yield "# TYPE steplog_jobs gauge"
    for workflow, counts in sorted(service.store.counts().items()):
        for status, count in sorted(counts.items()):
            yield f'steplog_jobs{{workflow="{label(workflow)}",status="{status}"}} {count}'
    yield "# TYPE steplog_oldest_ready_seconds gauge"
    yield f"steplog_oldest_ready_seconds {fleet_seen(service.store).oldest_ready_s or 0:.3f}"
    yield "# TYPE steplog_projection_lag_seconds gauge"
    for name, lag_s in ProjectionRunner(service.store).lags_s().items():
        if lag_s is not None:
            yield f'steplog_projection_lag_seconds{{projection="{label(name)}"}} {lag_s:.3f}'
    yield "# TYPE steplog_stream_clients gauge"
    yield f"steplog_stream_clients {service.changes.listeners}"
    yield "# TYPE steplog_feed_polls_total counter"
    yield f"steplog_feed_polls_total {service.changes.polls}"
    yield from service.durations.lines()
