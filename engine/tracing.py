"""Jobs as OpenTelemetry spans: a job's run, its phases, its attempts, each with ids and never with what a job holds.

Made from events that are durable, so a span says what the log says. A handler runs inside its attempt's span: what it
calls is found below that. Only `observing.py` imports this, and only where the program has set OpenTelemetry up.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from steplog.engine.definition import AnyDefinition
from steplog.engine.facts import AttemptId
from steplog.engine.masking import Masks, without
from steplog.engine.started import START, attempt_of
from steplog.eventstore import events as ev
from steplog.eventstore.store import Claim
from steplog.projections.state import State

_log = logging.getLogger("steplog.engine")

_OUTCOMES: dict[type[ev.EventData], str] = {
    ev.SubStepCompleted: "completed",
    ev.SubStepFailed: "failed",
    ev.SubStepInterrupted: "interrupted",
    ev.SubStepSkipped: "skipped",
    ev.LateOutcome: "late",
    ev.CompensationCompleted: "completed",
    ev.CompensationFailed: "failed",
    ev.CompensationInterrupted: "interrupted",
}
"""Events that an attempt ends with, and how."""


def origin(workflow: str) -> str | None:
    """The span that a job is created in, which is made where there is none, as a `traceparent`."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        with _quietly(f"a job of {workflow}"):
            about = {"steplog.workflow": workflow}
            span = _tracer().start_span(f"submit {workflow}", kind=SpanKind.PRODUCER, attributes=about)
            span.end()
            found = span.get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}" if found.is_valid else None


def _named(traceparent: str | None) -> SpanContext | None:
    """The span that a `traceparent` names; None where it names none."""
    try:
        _, trace_id, span_id, flags = (int(part, 16) for part in (traceparent or "").split("-")[:4])
    except ValueError:
        return None
    found = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return found if found.is_valid else None


@contextmanager
def _quietly(whose: str) -> Iterator[None]:
    """Work goes on whatever goes wrong in watching it."""
    try:
        yield
    except Exception as error:
        _log.warning("a span of %s is lost: %s", whose, error)


class Spans:
    """The spans of one run of one job: from its claim until it ends, waits for a person, or is handed back.

    The first run belongs to the trace that the job was created in; a later one, which may be days after, is a trace of
    its own with a link to that.
    """

    def __init__(self, definition: AnyDefinition, state: State, claim: Claim) -> None:
        self.job_id = state["job_id"]
        self._definition = definition
        self._state = state
        self._claim = claim
        self._job: Span = trace.INVALID_SPAN
        self._phases: dict[str, Span] = {}
        self._attempts: dict[AttemptId, Span] = {}

    # --- the run -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with _quietly(f"job {self.job_id}"):
            self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with _quietly(f"job {self.job_id}"):
            self._end(error)

    def _begin(self) -> None:
        created_in = _named(self._state["traceparent"])
        above, links = Context(), list[Link]()
        if created_in is not None and self._claim.epoch == 1:
            above = trace.set_span_in_context(trace.NonRecordingSpan(created_in), above)
        elif created_in is not None:
            links.append(Link(created_in))
        about: dict[str, str | int] = {"steplog.worker_id": self._claim.worker_id, "steplog.epoch": self._claim.epoch}
        self._job = self._span(f"job {self._definition.name}", above, about, SpanKind.CONSUMER, links)

    def _end(self, error: BaseException | None) -> None:
        for span in (*self._attempts.values(), *self._phases.values()):
            span.end()
        self._job.set_attribute("steplog.status", self._state["status"])
        if error is not None:
            self._job.set_status(StatusCode.ERROR, type(error).__name__)
        elif self._state["status"] == "failed":
            self._failed(self._job, self._state["error"])
        self._job.end()

    # --- what became durable -----------------------------------------------------------------------------------------

    def recorded(self, events: Sequence[ev.EventData], state: State) -> None:
        """Begin and end the spans that the events tell of."""
        self._state = state
        with _quietly(f"job {self.job_id}"):
            for event in events:
                if isinstance(event, ev.PhaseStarted):
                    self._phase(event.phase)
                elif isinstance(event, START):
                    self._start(attempt_of(event))
                elif outcome := _OUTCOMES.get(type(event)):
                    self._settle(event, outcome)
                elif isinstance(event, (ev.PhaseCompleted, ev.PhaseFailed)):
                    self._end_phase(event)

    def context_of(self, of: AttemptId) -> contextvars.Context | None:
        """The context of the handler, in which its attempt's span is the current one."""
        span = self._attempts.get(of)
        if span is None:
            return None
        context = contextvars.copy_context()
        context.run(current.attach, trace.set_span_in_context(span))
        return context

    def _phase(self, name: str) -> Span:
        """The phase's span; a phase that an earlier run began has one of its own in this run."""
        if name not in self._phases:
            above = trace.set_span_in_context(self._job, Context())
            self._phases[name] = self._span(f"phase {name}", above, {"steplog.phase": name})
        return self._phases[name]

    def _end_phase(self, event: ev.PhaseCompleted | ev.PhaseFailed) -> None:
        for of in [of for of in self._attempts if of.phase == event.phase]:
            self._attempts.pop(of).end()  # a person settled it, and its handler said nothing more
        span = self._phase(event.phase)
        if isinstance(event, ev.PhaseFailed):
            span.set_status(StatusCode.ERROR, f"failed: {', '.join(event.failed)}")
        self._phases.pop(event.phase).end()

    def _start(self, of: AttemptId) -> None:
        above = trace.set_span_in_context(self._phase(of.phase), Context())
        about: dict[str, str | int] = {
            "steplog.phase": of.phase,
            "steplog.sub_step": of.sub_step,
            "steplog.generation": of.generation,
            "steplog.attempt": of.attempt,
        }
        if of.item is not None:
            about["steplog.item"] = of.item
        self._attempts[of] = self._span(f"{'compensate' if of.undoing else 'sub-step'} {of.key}", above, about)

    def _settle(self, event: Any, outcome: str) -> None:
        span = self._attempts.pop(attempt_of(event), None)
        if span is None:
            return
        span.set_attribute("steplog.outcome", outcome)
        error = getattr(event, "error", None)
        if error is not None:
            self._failed(span, error)
        elif isinstance(event, (ev.SubStepInterrupted, ev.CompensationInterrupted)):
            span.set_status(StatusCode.ERROR, f"interrupted: {event.cause}")
        span.end()

    # --- spans -------------------------------------------------------------------------------------------------------

    def _span(
        self,
        name: str,
        above: Context,
        about: Mapping[str, str | int],
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
    ) -> Span:
        ids = {"steplog.job_id": self.job_id, "steplog.workflow": self._definition.name}
        return _tracer().start_span(name, above, kind, {**ids, **about}, links)

    def _failed(self, span: Span, error: Any) -> None:
        """The error as the log has it, without what the workflow's types declare secret."""
        secrets = Masks.of(self._definition).texts(self._state["input"], self._state["context"])
        told = without({name: error.get(name) or "" for name in ("type", "message", "traceback")}, secrets)
        span.set_status(StatusCode.ERROR, f"{told['type']}: {told['message']}")
        about = {"exception.type": told["type"], "exception.message": told["message"]}
        span.add_event("exception", {**about, "exception.stacktrace": told["traceback"]})


def _tracer() -> trace.Tracer:
    return trace.get_tracer("steplog")
