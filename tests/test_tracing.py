"""OpenTelemetry spans of jobs: one tree a run, ids on each, the errors of the log, nothing that is secret or held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode
from pydantic import BaseModel, Field
from source_tree import imported, modules

from steplog import Fatal, Retry, Skip, Step, Workflow
from steplog.engine.jobs import resume_blocking
from steplog.eventstore.sqlite import SQLiteStore

PASSWORD = "canary-of-a-password"


class Signup(BaseModel, frozen=True):
    restaurant: str = "canary-in-the-input"
    password: str = Field(default=PASSWORD, repr=False)


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """A program that has set OpenTelemetry up."""
    made = Spans()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made.provider)
    return made


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def id_of(span: ReadableSpan) -> int:
    return context(span).span_id


def about(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("steplog."): value for name, value in dict(span.attributes or {}).items()}


def test_a_run_is_a_tree_of_job_phases_and_attempts(spans: Spans, sqlite_store: SQLiteStore) -> None:
    wf = Workflow("signup")

    @wf.phase("first").sub_step(retry=Retry(attempts=2, wait="0s"))
    def flaky(step: Step) -> None:
        if step.attempt == 1:
            raise OSError("not yet")

    @wf.phase("second").sub_step
    async def greet() -> None:
        raise Skip("nobody is there")

    job_id = wf.run(store=sqlite_store).job_id
    job, first, second = spans.one("job signup"), spans.one("phase first"), spans.one("phase second")
    attempts = spans.named("sub-step first/flaky")
    assert [parent(span) for span in (first, second)] == [id_of(job)] * 2
    assert [parent(span) for span in attempts] == [id_of(first)] * 2
    assert parent(spans.one("sub-step second/greet")) == id_of(second)
    assert all(about(span)["job_id"] == job_id and about(span)["workflow"] == "signup" for span in spans.all[1:])
    assert [(about(span)["attempt"], about(span)["outcome"]) for span in attempts] == [(1, "failed"), (2, "completed")]
    assert about(spans.one("sub-step second/greet"))["outcome"] == "skipped"
    assert about(job)["status"] == "completed"


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_what_a_handler_calls_is_found_below_its_attempt(spans: Spans, sqlite_store: SQLiteStore, kind: str) -> None:
    wf = Workflow("calls")

    async def asks() -> None:
        spans.tracer.start_span("asked").end()

    def asks_in_a_thread() -> None:
        spans.tracer.start_span("asked").end()

    wf.sub_step(name="ask")(asks if kind == "async" else asks_in_a_thread)
    wf.run(store=sqlite_store)
    attempt = next(span for span in spans.all if span.name.startswith("sub-step"))
    assert parent(spans.one("asked")) == id_of(attempt)


def test_an_error_is_told_without_what_is_secret(spans: Spans, sqlite_store: SQLiteStore) -> None:
    wf = Workflow("signup", input=Signup)

    @wf.sub_step
    def log_in(step: Step[Signup, Any]) -> None:
        raise Fatal(f"no entry with {step.input.password}")

    wf.run(Signup(), store=sqlite_store)
    attempt, job = next(span for span in spans.all if span.name.startswith("sub-step")), spans.one("job signup")
    (told,) = attempt.events
    assert dict(told.attributes or {})["exception.message"] == "no entry with ********"
    assert "Fatal" in str(dict(told.attributes or {})["exception.stacktrace"])
    assert [span.status.status_code for span in (attempt, job)] == [StatusCode.ERROR] * 2
    everything = "".join(span.to_json() for span in spans.all)
    assert PASSWORD not in everything
    assert "canary-in-the-input" not in everything


def test_a_job_belongs_to_the_trace_that_it_was_submitted_in(spans: Spans, sqlite_store: SQLiteStore) -> None:
    wf = Workflow("plain")
    wf.sub_step(name="work")(lambda: None)
    with spans.tracer.start_as_current_span("a request") as request:
        wf.run(store=sqlite_store)
    assert parent(spans.one("job plain")) == request.get_span_context().span_id


def test_a_job_that_nobody_traced_gets_an_origin_of_its_own(spans: Spans, sqlite_store: SQLiteStore) -> None:
    wf = Workflow("plain")
    wf.sub_step(name="work")(lambda: None)
    wf.run(store=sqlite_store)
    assert parent(spans.one("job plain")) == id_of(spans.one("submit plain"))


def test_a_resumed_job_is_a_trace_of_its_own_with_a_link_to_its_origin(spans: Spans, sqlite_store: SQLiteStore) -> None:
    wf, broken = Workflow("mended"), [True]

    @wf.sub_step
    def work() -> None:
        if broken.pop():
            raise Fatal("broken")

    broken.insert(0, False)
    job = wf.run(store=sqlite_store)
    resume_blocking(wf, job.job_id, sqlite_store, by="anna")
    first, again = spans.named("job mended")
    assert again.parent is None
    assert [link.context.span_id for link in again.links] == [parent(first)] == [id_of(spans.one("submit mended"))]
    assert context(again).trace_id != context(first).trace_id
    assert about(again)["epoch"] == 2


def test_a_job_goes_on_whatever_goes_wrong_in_watching_it(
    spans: Spans, sqlite_store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the exporter is broken")

    wf = Workflow("plain")
    wf.sub_step(name="work")(lambda: None)
    monkeypatch.setattr("steplog.engine.tracing._tracer", lambda: type("Broken", (), {"start_span": breaks})())
    assert wf.run(store=sqlite_store).status == "completed"
    with spans.tracer.start_as_current_span("a request"):
        assert wf.run(store=sqlite_store).status == "completed"


def test_a_program_that_does_not_use_opentelemetry_imports_nothing_of_it(tmp_path: Path) -> None:
    script = (
        "import sys; from steplog import Workflow; wf = Workflow('plain'); wf.sub_step(name='work')(lambda: None);"
        "job = wf.run(store=sys.argv[1]);"
        "print(job.status, [name for name in sys.modules if name.split('.')[0] == 'opentelemetry'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path}/steplog.db"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "completed []\n"


def test_one_module_alone_imports_opentelemetry() -> None:
    uses = {
        module.name for module in modules() for name, _ in imported(module.tree) if name.startswith("opentelemetry")
    }
    assert uses == {"engine.tracing"}
