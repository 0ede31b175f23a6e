"""The timeline of a job, for the API and the pages: now, or as it was."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256

from steplog.api.answers import etag
from steplog.api.service import Service
from steplog.engine.masking import without
from steplog.engine.ownership import stalled_among
from steplog.eventstore.store import Head
from steplog.projections.timeline import Timeline, timeline
from steplog.projections.timeline_svg import timeline_svg

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def timeline_of(service: Service, head: Head, version: int | None) -> Timeline:
    """The job's timeline as of a version, or of now."""
    events = service.store.read(head.job_id, 0, version or head.version)
    if version is not None:
        found = timeline(events)
    else:
        found = timeline(events, service.store.now(), stalled=bool(stalled_among(service.store, [head])))
    return without(found, service.jobs.secrets_of(head))  # type: ignore[no-any-return]  # the same shape, other texts


def svg_headers(found: Timeline, caching: str) -> Mapping[str, str]:
    """Headers of the picture: it may use its own style sheet, named by its hash, and nothing else."""
    return {
        "ETag": etag(found["version"]),
        "Cache-Control": caching,
        "Content-Security-Policy": f"default-src 'none'; style-src '{_style_hash()}'; frame-ancestors 'self'",
    }


@lru_cache(maxsize=1)
def _style_hash() -> str:
    """The picture's style sheet is the same for every job."""
    empty = Timeline(
        job_id="", workflow="", status="queued", version=1, began_at="2026-01-01T00:00:00.000000Z", ended_at=None,
        edge_at="2026-01-01T00:00:01.000000Z", live=False, phases=[], gaps=[],
    )  # fmt: skip
    found = _STYLE.search(timeline_svg(empty))
    assert found is not None
    return f"sha256-{b64encode(sha256(found[1].encode()).digest()).decode()}"
