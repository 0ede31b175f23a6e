"""Every error as an RFC 9457 problem: one table from error types to status, type, what was wrong and what next."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from steplog.engine import errors as engine
from steplog.eventstore import errors as log

TYPE_PREFIX = "urn:steplog:problem:"
MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A refusal that the API itself decides on."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.facts = facts

    def document(self) -> dict[str, Any]:
        """The problem as JSON."""
        document: dict[str, Any] = {
            "type": f"{TYPE_PREFIX}{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.hint:
            document["hint"] = self.hint
        return document | self.facts

    def response(self) -> Response:
        """The problem as an answer."""
        return Response(orjson.dumps(self.document()), self.status, self.headers, MEDIA_TYPE)


class _Row(NamedTuple):
    error: type[Exception]
    status: int
    kind: str
    hint: str | None = None
    facts: tuple[str, ...] = ()
    """Attributes of the error that the problem says too."""


_TABLE = (
    _Row(log.JobNotFound, 404, "job-not-found", "list jobs with GET /api/v1/jobs"),
    _Row(engine.SubStepNotFound, 404, "sub-step-not-found", "name one of the job's phases and sub-steps", ("known",)),
    _Row(engine.NoFanOut, 404, "no-items", "name a fan-out whose items are listed"),
    _Row(engine.WorkflowNotFound, 404, "workflow-not-found", "start the server with --module MODULE that declares it"),
    _Row(engine.ActionRefused, 409, "wrong-state", "do one of the allowed actions", (
        "allowed_actions", "blocked_by",
    )),
    _Row(log.WrongState, 409, "wrong-state", None, ("allowed",)),
    _Row(log.JobOwned, 409, "job-owned", "wait, or stop that process first", ("worker_id", "until")),
    _Row(log.WorkerDead, 409, "fenced", "open the job by its key again: that gives a fresh claim"),
    _Row(engine.OwnershipLost, 409, "fenced", "open the job by its key again: that gives a fresh claim"),
    _Row(engine.VersionChanged, 412, "version-changed", "look at the job as it is now, then decide again", (
        "expected", "version",
    )),
    _Row(engine.PlanMismatch, 409, "plan-mismatch", None, ("differences",)),
    _Row(log.KeyConflict, 422, "key-conflict", "use another key, or the same input", ("job_id",)),
    _Row(engine.RecordRefused, 422, "record-refused", "see docs/events.md for what each event says"),
    _Row(engine.DefinitionError, 422, "plan-refused"),
    _Row(engine.InputRefused, 422, "input-refused", "see the schema at GET /api/v1/workflows/{name}", ("problems",)),
    _Row(engine.ValueRefused, 422, "value-refused", None, ("problems",)),
    _Row(log.PayloadRefused, 422, "value-refused", None, ("path",)),
    _Row(log.CursorRefused, 422, "cursor-refused", "leave it out to begin from now"),
    _Row(log.FeedMoved, 409, "feed-moved", "leave the cursor out, and look at every job once"),
    _Row(log.LogError, 500, "log-damaged", "see `steplog verify`; nothing was appended", ("job_id", "version")),
    _Row(log.StoreNotMigrated, 503, "store-not-migrated", "run `steplog db migrate`"),
    _Row(log.OutcomeUnknown, 503, "outcome-unknown", "send the same request with the same Idempotency-Key again"),
    _Row(log.StoreError, 503, "store-unavailable", "try again; see GET /readyz"),
)  # fmt: skip


def problem_of(error: Exception) -> Problem:
    """What is told about an error; of one that nobody foresaw, only that it happened."""
    if isinstance(error, Problem):
        return error
    for row in _TABLE:
        if isinstance(error, row.error):
            facts = {name: getattr(error, name) for name in row.facts}
            headers = {"Retry-After": "2"} if row.status == 503 else {}
            return Problem(row.status, row.kind, str(error), hint=row.hint, headers=headers, **facts)
    return Problem(500, "internal", "something went wrong in steplog; its log has the traceback")


def not_found(what: str, *, hint: str | None = None) -> Problem:
    """404 for what is no job, sub-step or workflow."""
    return Problem(404, "not-found", what, hint=hint)


def invalid(detail: str, **facts: Any) -> Problem:
    """422 for a request that does not say what it has to."""
    return Problem(422, "invalid-request", detail, **facts)
