"""Figures in Prometheus' text form; never a job's id as a label."""

from __future__ import annotations

from collections.abc import Iterator

from steplog.api.durations import label
from steplog.api.service import Service


def exposition(service: Service) -> str:
    """Everything that Prometheus is told."""
    return "".join(f"{line}\n" for line in _lines(service))


def _lines(service: Service) -> Iterator[str]:
    yield "# TYPE steplog_jobs gauge"
    for workflow, counts in sorted(service.store.counts().items()):
        for status, count in sorted(counts.items()):
            yield f'steplog_jobs{{workflow="{label(workflow)}",status="{status}"}} {count}'
    yield "# TYPE steplog_stream_clients gauge"
    yield f"steplog_stream_clients {service.changes.listeners}"
    yield "# TYPE steplog_feed_polls_total counter"
    yield f"steplog_feed_polls_total {service.changes.polls}"
    yield from service.durations.lines()
