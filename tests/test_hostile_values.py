"""Whatever value comes from a handler or a caller, and whatever a thing is called: on both databases it is read back
type-exact, or refused with its path while the log stays as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from log_builder import LogBuilder
from payloads import EDGES, OFFENDERS, OFFENDING, PLACES, Shade, held_at, named, plain_json, same
from pydantic import BaseModel, SecretStr

from steplog import Context, DefinitionError, Step, Workflow
from steplog.engine.history import load
from steplog.engine.jobs import run_blocking
from steplog.eventstore.chain import Position, end_of
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.events import ContextChanged, EventData, JobCreated, SubStepCheckpointed, SubStepCompleted
from steplog.eventstore.store import Append, Claim, Code, HeadQuery, NewJob, Store

ON_ONE_STORE = settings(
    max_examples=max(20, settings().max_examples // 5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The store stays over the examples; each of them makes a job of its own."""

NAMES = [
    'it\'s "quoted"',
    "'; drop table events; --",
    '"; drop table jobs; --',
    "%s %(name)s {} $1 ?",
    "\\'; select 1",
    "__class__",
    "👩‍👩‍👧 日本 ß",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "x" * 255,
]
"""Names that mean something elsewhere; here they are names."""

NO_NAMES = ["", "two\nlines", "nul \x00", "\x1b[31m", "\ud800", "x" * 256]


class Anything(Context):
    value: Any = None


class Order(BaseModel):
    value: Any


class Tip(BaseModel):
    amount: Any = None


class GenerousTip(Tip):
    extra: int


@dataclass(slots=True)
class Bill:
    paid: float
    by: Any = None


def facts_of(value: Any) -> list[EventData]:
    """Every kind of event that carries a value of somebody's making."""
    attempt: dict[str, Any] = {"phase": "p", "sub_step": "s", "attempt": 1}
    return [
        SubStepCheckpointed(**attempt, cursor=value, draft={"set": {"value": value}}),
        ContextChanged(set={"value": value}),
        SubStepCompleted(**attempt, result=value, seconds=1.0),
    ]


def new_job(build: LogBuilder, claim: Claim, value: Any) -> NewJob:
    job_id = build.clock.new_id()
    created = JobCreated(workflow="w", workflow_version="1", plan={}, input=value, context={"value": value})
    return NewJob(job_id, build.seal(job_id, Position(), created), build.columns(), "input", claim)


@pytest.fixture
def claim(store: Store) -> Claim:
    """A worker of the test, and its claim of any job it makes."""
    worker = LogBuilder(SystemClock()).worker()
    store.register_worker(worker, 3600)
    return Claim(worker.worker_id, 1, "claim")


@ON_ONE_STORE
@given(plain_json())
def test_a_value_comes_back_from_the_database_as_it_went_in(store: Store, claim: Claim, value: Any) -> None:
    assert_comes_back(store, claim, value)


def test_values_at_the_edge_come_back_from_the_database_as_they_went_in(store: Store, claim: Claim) -> None:
    for value in [*EDGES, [EDGES], {"a": EDGES}]:
        assert_comes_back(store, claim, value)


def assert_comes_back(store: Store, claim: Claim, value: Any) -> None:
    build = LogBuilder(SystemClock())
    job = new_job(build, claim, value)
    end = end_of(job.events, Position())
    item = Append(job.job_id, end, claim, build.seal(job.job_id, end, *facts_of(value)), job.columns)
    store.create(job)
    (answer,) = store.append([item])

    created, checkpointed, changed, completed = (event.data for event in store.read(job.job_id))
    assert answer.code is Code.STORED
    assert same([created.get("input"), created["context"]], [value, {"value": value}])
    assert same([checkpointed.get("cursor"), checkpointed["draft"]], [value, {"set": {"value": value}}])
    assert same([changed["set"], completed.get("result")], [{"value": value}, value])


@given(plain_json(), OFFENDING, PLACES)
def test_a_value_that_cannot_be_kept_is_refused_in_every_event_by_its_path(
    value: Any, offending: Any, place: list[str | int]
) -> None:
    held, path = held_at(offending, place, value)
    build = LogBuilder(SystemClock())
    paths = ["SubStepCheckpointed.cursor", "ContextChanged.set.value", "SubStepCompleted.result"]
    for fact, begins in zip(facts_of(held), paths, strict=True):
        with pytest.raises(PayloadRefused) as refused:
            build.seal("j", Position(), fact)
        assert refused.value.path == begins + path


# --- through a workflow ----------------------------------------------------------------------------------------------

OFFENDER = pytest.mark.parametrize("offender", OFFENDERS, ids=named)


def test_every_edge_goes_through_a_workflow_and_back(store: Store) -> None:
    wf = Workflow("edges", input=Order, context=Anything)

    @wf.sub_step
    def keep(step: Step[Order, Anything]) -> Any:
        step.checkpoint(EDGES)
        assert same(step.cursor, EDGES)
        step.context.value = {"edges": EDGES}
        return EDGES

    job = wf.run(Order(value=EDGES), store=store)
    state = load(store, job.job_id).state

    assert same(job.result(keep), EDGES)
    assert same(state["input"], {"value": EDGES})
    assert same(state["context"], {"value": {"edges": EDGES}})
    assert [event.data["cursor"] for event in store.read(job.job_id) if event.type == "SubStepCheckpointed"] == [EDGES]


@OFFENDER
def test_what_a_handler_cannot_leave_in_the_log_is_refused_with_its_path(store: Store, offender: Any) -> None:
    wf = Workflow("refused", context=Anything)

    @wf.sub_step(optional=True)
    def returns() -> Any:
        return {"a": [1, offender]}

    @wf.sub_step(optional=True)
    def sets(step: Step[Any, Anything]) -> None:
        step.context.value = [{"a": offender}]

    @wf.sub_step(optional=True)
    def checkpoints(step: Step[Any, Anything]) -> None:
        step.checkpoint({"at": offender})

    job = wf.run(store=store)

    steps = job.snapshot["phases"]["main"]["sub_steps"]
    refusals = {name: step["error"]["message"].partition(":")[0] for name, step in steps.items()}
    assert refusals == {"returns": "result.a[1]", "sets": "context.value[0].a", "checkpoints": "cursor.at"}
    assert {step["error"]["type"] for step in steps.values()} == {PayloadRefused.__name__}
    assert (job.status, job.context.value) == ("completed", None)
    traces = {"SubStepCompleted", "SubStepCheckpointed", "ContextChanged"}
    assert traces.isdisjoint(event.type for event in store.read(job.job_id))


@OFFENDER
def test_an_input_that_cannot_be_kept_is_refused_with_its_path_and_leaves_no_job(store: Store, offender: Any) -> None:
    wf = Workflow("input", input=Order)
    wf.sub_step(name="never")(lambda: None)

    with pytest.raises(PayloadRefused) as refused:
        wf.run(Order(value=[offender]), store=store)

    assert refused.value.path == "input.value[0]"
    assert store.heads(HeadQuery()) == []


def not_a_number() -> Tip:
    return Tip(amount=math.nan)


def secret() -> list[Tip]:
    return [Tip(amount=SecretStr("tip"))]


def infinite() -> Bill:
    return Bill(paid=-math.inf)


def untyped_model() -> dict[str, Any]:
    return {"bills": [Bill(paid=1.0)]}


def lost_fields() -> Tip:
    return GenerousTip(amount=1, extra=2)


@pytest.mark.parametrize(
    ("handler", "path"),
    [
        (not_a_number, "result.amount"),
        (secret, "result[0].amount"),
        (infinite, "result.paid"),
        (untyped_model, "result.bills[0]"),
        (lost_fields, "result"),
    ],
    ids=["nan", "secret", "infinity", "untyped model", "subclass"],
)
def test_a_value_that_pydantic_would_change_is_refused(store: Store, handler: Any, path: str) -> None:
    wf = Workflow("typed")
    wf.sub_step(name="typed")(handler)

    error = wf.run(store=store).snapshot["error"]

    assert (error["type"], error["message"].partition(":")[0]) == (PayloadRefused.__name__, path)


def test_typed_values_that_come_back_as_they_were_are_kept(store: Store) -> None:
    wf = Workflow("kept")

    @wf.sub_step
    def bill() -> tuple[Bill, dict[int, Tip], Shade, float, bytes]:
        return Bill(paid=0.5, by=["anna"]), {7: Tip(amount={"a": [None]})}, Shade.DARK, 1, b"bytes"

    job = wf.run(store=store)

    assert job.result(bill) == (Bill(paid=0.5, by=["anna"]), {7: Tip(amount={"a": [None]})}, Shade.DARK, 1.0, b"bytes")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_kept_as_it_is_and_found_again(store: Store, name: str) -> None:
    phase_name = name.replace("/", "|")
    wf = Workflow(name, context=Anything)
    phase = wf.phase(phase_name)

    @phase.sub_step(name=name)
    def first(step: Step[Any, Anything]) -> str:
        step.context.value = {step.name: step.phase}
        return step.name

    phase.sub_step(name=f"{name[:200]}/after", after=[first])(lambda: None)
    bystander = Workflow("bystander")
    bystander.sub_step(name=name)(lambda: None)

    other = bystander.run(store=store)
    job = wf.run(key=name, store=store)

    assert (job.status, job.result(first)) == ("completed", name)
    assert list(job.snapshot["phases"]) == [phase_name]
    assert list(job.snapshot["phases"][phase_name]["sub_steps"]) == [name, f"{name[:200]}/after"]
    assert same(load(store, job.job_id).state["context"], {"value": {name: phase_name}})
    assert [head.job_id for head in store.heads(HeadQuery(workflow=name))] == [job.job_id]
    assert [head.job_id for head in store.heads(HeadQuery(key=name))] == [job.job_id]
    assert store.job_of_key(name, name) == [job.job_id]
    assert len(store.heads(HeadQuery())) == 2
    assert [event.version for event in store.read(other.job_id)] == list(range(1, other.version + 1))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_finds_nothing_where_nothing_has_it(store: Store, name: str) -> None:
    wf = Workflow("plain")
    wf.sub_step(name="failing")(lambda: 1 / 0)
    wf.run(key="plain", store=store)

    assert store.job_of_key(None, name) == []
    assert store.find(name) == []
    for query in (
        HeadQuery(workflow=name),
        HeadQuery(status=name),
        HeadQuery(phase=name),
        HeadQuery(key=name),
        HeadQuery(tags={name: name}),
        HeadQuery(failed_sub_step=name),
    ):
        assert store.heads(query) == []
    assert len(store.heads(HeadQuery())) == 1


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
def test_what_is_no_name_is_refused_before_anything_is_stored(store: Store, name: str) -> None:
    wf = Workflow("named")
    wf.sub_step(name="step")(lambda: None)

    with pytest.raises(DefinitionError):
        Workflow(name)
    with pytest.raises(DefinitionError):
        wf.phase(name)
    with pytest.raises(PayloadRefused, match="key"):
        run_blocking(wf, key=name, store=store)
    assert store.heads(HeadQuery()) == []


@pytest.mark.parametrize("name", NO_NAMES[1:], ids=ascii)
def test_what_is_no_name_names_no_sub_step(name: str) -> None:
    with pytest.raises(DefinitionError):
        Workflow("named").sub_step(name=name)(lambda: None)
