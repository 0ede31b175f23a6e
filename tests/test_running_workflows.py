"""What a workflow's declaration means when it runs: order, data, retries, conditions, failures, context."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from steplog import (
    AttemptOver,
    Context,
    Fatal,
    InputRefused,
    NoResult,
    Retry,
    Settings,
    Skip,
    Step,
    Workflow,
    result,
    use,
)
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.eventstore.errors import KeyConflict, PayloadRefused
from steplog.eventstore.store import Store

AT_ONCE = Retry(attempts=3, wait=0, jitter=0)


class Order(BaseModel, frozen=True):
    dishes: int = 2


class Kitchen(Context):
    ready: list[str] = []
    cook: str | None = None


class Anything(Context):
    notes: dict[str, Any] = {}


def types_of(store: Store, job_id: str) -> list[str]:
    return [event.type for event in store.read(job_id)]


def test_results_flow_along_edges(store: Store) -> None:
    wf = Workflow("order", input=Order)

    @wf.sub_step
    async def shop(step: Step[Order]) -> dict[str, int]:
        return {"eggs": step.input.dishes}

    @wf.sub_step
    def cook(bought: dict[str, int] = result(shop)) -> list[str]:
        return [f"omelette of {bought['eggs']}"]

    job = wf.run(Order(dishes=3), store=store)

    assert job.status == "completed"
    assert job.result(cook) == ["omelette of 3"]


def test_results_come_back_as_the_type_they_were_returned_as(store: Store) -> None:
    wf = Workflow("types")

    @wf.sub_step
    def where() -> tuple[int, str]:
        return 3, "north"

    @wf.sub_step
    def order() -> Order:
        return Order(dishes=7)

    @wf.sub_step
    def check(place: tuple[int, str] = result(where), wanted: Order = result(order)) -> bool:
        return place == (3, "north") and wanted == Order(dishes=7)

    assert wf.run(store=store).result(check) is True


def test_a_phase_starts_when_every_sub_step_of_the_one_before_has_settled(store: Store) -> None:
    wf = Workflow("barrier")
    seen: list[str] = []
    first, second = wf.phase("first"), wf.phase("second")

    @first.sub_step
    async def slow() -> None:
        await asyncio.sleep(0.02)
        seen.append("slow")

    @first.sub_step
    async def quick() -> None:
        seen.append("quick")

    @second.sub_step
    async def then() -> None:
        seen.append("then")

    wf.run(store=store)

    assert seen == ["quick", "slow", "then"]


def test_siblings_run_at_the_same_time_up_to_the_phases_limit(store: Store) -> None:
    wf = Workflow("limit")
    phase = wf.phase("only", parallel=2)
    running: list[int] = [0, 0]
    lock = threading.Lock()

    def work() -> None:
        with lock:
            running[0] += 1
            running[1] = max(running)
        time.sleep(0.02)
        with lock:
            running[0] -= 1

    for name in "abcde":
        phase.sub_step(name=name)(work)

    assert wf.run(store=store).status == "completed"
    assert running[1] == 2


def test_the_start_of_a_sub_step_is_durable_before_its_handler_is_called(store: Store) -> None:
    wf = Workflow("durable")
    seen: list[bool] = []

    @wf.sub_step
    def look(step: Step) -> None:
        seen.append("SubStepStarted" in types_of(store, step.job_id))

    wf.run(store=store)

    assert seen == [True]


def test_a_failing_sub_step_is_retried_and_every_attempt_and_error_is_in_the_log(store: Store) -> None:
    wf = Workflow("retry")

    @wf.sub_step(retry=AT_ONCE)
    def flaky(step: Step) -> int:
        if step.attempt < 3:
            raise ConnectionError(f"no answer to attempt {step.attempt}")
        return step.attempt

    job = wf.run(store=store)

    failures = [event.data["error"] for event in store.read(job.job_id) if event.type == "SubStepFailed"]
    assert job.result(flaky) == 3
    assert [failure["message"] for failure in failures] == ["no answer to attempt 1", "no answer to attempt 2"]
    assert all("ConnectionError" in failure["traceback"] for failure in failures)


def test_every_attempt_has_the_same_idempotency_key(store: Store) -> None:
    wf = Workflow("keys")
    keys: list[str] = []

    @wf.sub_step(retry=AT_ONCE)
    def charge(step: Step) -> None:
        keys.append(step.idempotency_key)
        if step.attempt < 3:
            raise ConnectionError

    @wf.sub_step
    def other(step: Step) -> str:
        return step.idempotency_key

    job = wf.run(store=store)

    assert len(keys) == 3
    assert len({*keys, job.result(other)}) == 2


def test_a_job_whose_budget_of_attempts_is_spent_fails_and_names_the_error(store: Store) -> None:
    wf = Workflow("spent")

    @wf.sub_step(retry=AT_ONCE)
    def broken() -> None:
        raise ValueError("no such menu")

    job = wf.run(store=store)

    assert job.status == "failed"
    assert job.snapshot["error"]["message"] == "no such menu"
    assert job.snapshot["phases"]["main"]["sub_steps"]["broken"]["attempts"] == 3
    with pytest.raises(NoResult, match="no such menu"):
        job.result(broken)


@pytest.mark.parametrize(
    ("error", "attempts"), [(Fatal("never"), 1), (KeyError("not this one"), 1), (TimeoutError("again"), 3)]
)
def test_only_what_the_policy_names_is_retried(store: Store, error: Exception, attempts: int) -> None:
    wf = Workflow("policy")

    @wf.sub_step(retry=Retry(attempts=3, wait=0, jitter=0, on=(TimeoutError, Fatal)))
    def broken() -> None:
        raise error

    job = wf.run(store=store)

    assert job.snapshot["phases"]["main"]["sub_steps"]["broken"]["attempts"] == attempts


def test_a_retry_waits_for_its_due_time(store: Store) -> None:
    wf = Workflow("due")

    @wf.sub_step(retry=Retry(attempts=2, wait="50ms", jitter=0))
    def flaky(step: Step) -> None:
        if step.attempt == 1:
            raise ConnectionError

    events = list(store.read(wf.run(store=store).job_id))

    (due,) = [event.data["retry_at"] for event in events if event.type == "SubStepRetryScheduled"]
    started = [event.recorded_at for event in events if event.type == "SubStepStarted"]
    assert started[0] < due <= started[1]


def test_a_condition_skips_with_its_reason_and_is_recorded_where_it_is_met(store: Store) -> None:
    wf = Workflow("conditions", input=Order, context=Kitchen)

    @wf.sub_step(when=lambda job: job.input.dishes > 5 or Skip("too few dishes"))
    def big() -> None: ...

    @wf.sub_step(when=lambda job: job.input.dishes > 1)
    def small() -> None: ...

    job = wf.run(Order(), store=store)

    steps = job.snapshot["phases"]["main"]["sub_steps"]
    assert (steps["big"]["status"], steps["big"]["reason"]) == ("skipped", "too few dishes")
    assert [event.data["when"] for event in store.read(job.job_id) if event.type == "SubStepStarted"] == [True]


def test_a_condition_that_raises_fails_the_sub_step_without_calling_it(store: Store) -> None:
    wf = Workflow("broken condition")

    @wf.sub_step(retry=AT_ONCE, when=lambda job: 1 / 0 > 1)
    def never() -> None:
        raise AssertionError("called")

    job = wf.run(store=store)

    assert job.status == "failed"
    assert job.snapshot["error"]["type"] == "ZeroDivisionError"
    assert "SubStepStarted" not in types_of(store, job.job_id)


def test_a_condition_is_asked_once_when_its_edges_are_met(store: Store) -> None:
    wf = Workflow("asked")
    phase = wf.phase("only", parallel=1)
    asked: list[str] = []

    def condition(name: str, answer: bool) -> Any:
        def ask(job: Any) -> bool:
            asked.append(name)
            return answer

        return ask

    for number in range(4):
        phase.sub_step(name=f"s{number}", when=condition(f"s{number}", number % 2 == 0))(lambda: None)
    last = phase.sub_step(name="last", after=list(phase.sub_steps.values()), when=condition("last", True))(lambda: 1)

    job = wf.run(store=store)

    assert asked == ["s0", "s1", "s2", "s3", "last"]
    assert job.result(last) == 1


def test_skip_raised_by_a_handler_is_recorded(store: Store) -> None:
    wf = Workflow("skip")

    @wf.sub_step
    def nothing_to_do() -> None:
        raise Skip("the menu is empty")

    step = wf.run(store=store).snapshot["phases"]["main"]["sub_steps"]["nothing_to_do"]

    assert (step["status"], step["reason"]) == ("skipped", "the menu is empty")


def test_what_needs_a_skipped_result_is_skipped_too_unless_it_has_a_default(store: Store) -> None:
    wf = Workflow("needs")

    @wf.sub_step(when=lambda job: False)
    def source() -> int:
        return 1

    @wf.sub_step
    def strict(value: int = result(source)) -> int:
        return value

    @wf.sub_step
    def further(value: int = result(strict)) -> int:
        return value

    @wf.sub_step
    def lenient(value: int | None = result(source, default=None)) -> bool:
        return value is None

    @wf.sub_step(after=[source, strict])
    def ordered() -> str:
        return "runs"

    job = wf.run(store=store)

    steps = job.snapshot["phases"]["main"]["sub_steps"]
    assert [steps[name]["status"] for name in ("strict", "further")] == ["skipped", "skipped"]
    assert steps["strict"]["reason"] == "needs source"
    assert (job.result(lenient), job.result(ordered)) == (True, "runs")


def test_an_optional_failure_is_a_warning_and_a_critical_one_fails_the_job_after_siblings_settle(store: Store) -> None:
    wf = Workflow("failures")
    first = wf.phase("first")

    @first.sub_step(optional=True)
    def tolerated() -> None:
        raise ValueError("502")

    second = wf.phase("second")

    @second.sub_step
    def critical() -> None:
        raise ValueError("no account")

    @second.sub_step
    async def sibling() -> str:
        await asyncio.sleep(0.02)
        return "settled"

    @second.sub_step
    def dependent(of: None = result(critical)) -> None: ...

    @wf.phase("third").sub_step
    def later() -> None: ...

    job = wf.run(store=store)

    steps = job.snapshot["phases"]["second"]["sub_steps"]
    assert (job.status, job.snapshot["current_phase"]) == ("failed", "second")
    assert (job.result(sibling), steps["dependent"]["status"]) == ("settled", "pending")
    assert job.snapshot["phases"]["first"]["status"] == "completed"
    assert types_of(store, job.job_id)[-2:] == ["PhaseFailed", "JobFailed"]


def test_a_failed_job_is_resumed_by_a_person_and_repeats_nothing_that_is_done(store: Store) -> None:
    wf = Workflow("mended")
    ran: list[str] = []
    mended = False

    @wf.sub_step
    def done() -> None:
        ran.append("done")

    @wf.sub_step(retry=Retry(attempts=2, wait=0, jitter=0))
    def broken() -> None:
        ran.append("broken")
        if not mended:
            raise ValueError("wrong password")

    failed = wf.run(store=store)
    mended = True
    job = resume_blocking(wf, failed.job_id, store, by="anna")

    assert (failed.status, job.status) == ("failed", "completed")
    assert ran == ["done", "broken", "broken", "broken"] or sorted(ran) == ["broken"] * 3 + ["done"]
    assert [event.data["by"] for event in store.read(job.job_id) if event.type == "JobResumed"] == ["anna"]


def test_context_is_typed_recorded_with_the_completion_and_seen_by_what_follows(store: Store) -> None:
    wf = Workflow("context", context=Kitchen)

    @wf.sub_step
    def hire(step: Step[Any, Kitchen]) -> None:
        step.context.cook = "anna"
        step.context.ready.append("soup")

    @wf.sub_step(after=[hire])
    async def look(step: Step[Any, Kitchen]) -> str:
        return f"{step.context.cook}: {step.context.ready}"

    job = wf.run(store=store)

    assert job.result(look) == "anna: ['soup']"
    assert job.context == Kitchen(cook="anna", ready=["soup"])


def test_the_draft_of_a_failed_attempt_vanishes_back_to_its_last_checkpoint(store: Store) -> None:
    wf = Workflow("draft", context=Kitchen)

    @wf.sub_step(retry=AT_ONCE)
    def cook(step: Step[Any, Kitchen]) -> list[str]:
        if step.attempt == 1:
            step.context.ready.append("soup")
            step.checkpoint({"dish": 1})
            step.context.ready.append("burnt")
            raise ConnectionError
        assert step.cursor == {"dish": 1}
        return step.context.ready

    job = wf.run(store=store)

    assert job.result(cook) == ["soup"]
    assert job.context.ready == ["soup"]


def test_what_a_failed_attempt_changed_in_place_is_seen_by_nobody(store: Store) -> None:
    wf = Workflow("in place", context=Anything)
    seen: list[Any] = []

    @wf.sub_step
    def source() -> Any:
        return {"dishes": []}

    @wf.sub_step(retry=AT_ONCE)
    def flaky(step: Step[Any, Anything], given: Any = result(source)) -> None:
        seen.append(copy.deepcopy((step.context.notes, given["dishes"], step.cursor or [])))
        step.context.notes.setdefault("by", []).append(step.attempt)
        given["dishes"].append(step.attempt)
        if step.attempt == 1:
            step.checkpoint([1])
        if step.attempt < 3:
            step.cursor.append("later")
            raise ConnectionError

    @wf.sub_step(after=[flaky])
    def after(given: Any = result(source)) -> Any:
        return given

    job = wf.run(store=store)

    assert seen == [({}, [], []), ({"by": [1]}, [], [1]), ({"by": [1]}, [], [1])]
    assert (job.context.notes, job.result(after)) == ({"by": [1, 3]}, {"dishes": []})


def test_a_field_may_be_written_again_by_what_depends_on_its_writer_through_others(store: Store) -> None:
    wf = Workflow("through others", context=Kitchen)

    @wf.sub_step
    def hire(step: Step[Any, Kitchen]) -> None:
        step.context.cook = "anna"

    between = wf.sub_step(name="between", after=[hire])(lambda: None)

    @wf.sub_step(after=[between])
    def replace(step: Step[Any, Kitchen]) -> None:
        step.context.cook = "berta"

    job = wf.run(store=store)

    assert (job.status, job.context.cook) == ("completed", "berta")


def test_a_condition_cannot_change_the_context(store: Store) -> None:
    wf = Workflow("read only", context=Anything)

    def meddle(job: Any) -> bool:
        job.context.notes["by"] = ["condition"]
        return True

    @wf.sub_step(when=meddle)
    def look(step: Step[Any, Anything]) -> Any:
        return step.context.notes

    assert wf.run(store=store).result(look) == {}


def test_a_context_field_with_an_alias_is_kept_by_its_name(store: Store) -> None:
    class Aliased(Context):
        code_files: list[str] = Field([], alias="codeFiles")

    wf = Workflow("alias", context=Aliased)

    @wf.sub_step
    def write(step: Step) -> None:
        step.context.code_files = ["index.html"]

    job = wf.run(store=store)

    assert (job.snapshot["context"], job.context.code_files) == ({"code_files": ["index.html"]}, ["index.html"])


@pytest.mark.parametrize("value", [None, "text", 3, True])
def test_a_result_that_is_not_of_its_type_fails_the_sub_step_that_returned_it(store: Store, value: Any) -> None:
    wf = Workflow("wrong type")

    @wf.sub_step
    def count() -> list[int]:
        return value  # type: ignore[no-any-return]

    @wf.sub_step
    def add(counted: list[int] = result(count)) -> int:
        return sum(counted)

    job = wf.run(store=store)

    assert (job.status, job.snapshot["error"]["sub_step"]) == ("failed", "count")
    assert job.snapshot["error"]["message"].startswith("result: ")


def test_two_siblings_that_write_the_same_field_park_the_job_with_both_values_kept(store: Store) -> None:
    wf = Workflow("conflict", context=Kitchen)

    @wf.sub_step
    def one(step: Step[Any, Kitchen]) -> None:
        step.context.cook = "anna"

    @wf.sub_step
    def two(step: Step[Any, Kitchen]) -> None:
        step.context.cook = "berta"

    job = wf.run(store=store)

    (refused,) = [e.data["context_refused"] for e in store.read(job.job_id) if "context_refused" in e.data]
    assert (job.status, {job.context.cook, refused["cook"]}) == ("parked", {"anna", "berta"})
    assert "context conflict" in job.snapshot["reason"]


def test_siblings_that_write_the_same_value_agree_and_what_depends_on_the_writer_may_change_it(store: Store) -> None:
    wf = Workflow("agreement", context=Kitchen)

    def hires(step: Step[Any, Kitchen]) -> None:
        step.context.cook = "anna"

    one = wf.sub_step(name="one")(hires)
    wf.sub_step(name="two")(hires)

    @wf.sub_step(after=[one])
    def between(step: Step[Any, Kitchen]) -> None: ...

    @wf.sub_step(after=[between])
    def replaces(step: Step[Any, Kitchen]) -> None:
        step.context.ready = ["soup"]

    @wf.phase("later").sub_step
    def relieves(step: Step[Any, Kitchen]) -> None:
        step.context.cook = "berta"

    job = wf.run(store=store)

    assert (job.status, job.context) == ("completed", Kitchen(cook="berta", ready=["soup"]))


def test_a_resource_is_opened_for_each_attempt_and_closed_after_it(store: Store) -> None:
    wf = Workflow("resources")
    told: list[str] = []

    def kitchen() -> Iterator[str]:
        told.append("open")
        yield "kitchen"
        told.append("close")

    async def shop() -> AsyncIterator[str]:
        told.append("open shop")
        yield "shop"
        told.append("close shop")

    @wf.sub_step
    def cook(where: str = use(kitchen)) -> str:
        return where

    @wf.sub_step(after=[cook])
    async def buy(where: str = use(shop), also: str = use(kitchen)) -> str:
        return where + also

    job = wf.run(store=store)

    assert (job.result(cook), job.result(buy)) == ("kitchen", "shopkitchen")
    assert told == ["open", "close", "open shop", "open", "close", "close shop"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_timeout_is_a_failure_that_is_retried(store: Store, is_async: bool) -> None:
    wf = Workflow("timeout")
    release = threading.Event()

    async def slow_async(step: Step) -> int:
        if step.attempt == 1:
            await asyncio.sleep(60)
        return step.attempt

    def slow(step: Step) -> int:
        if step.attempt == 1:
            while not step.cancelled:
                release.wait(0.005)
        return step.attempt

    declared: Any = wf.sub_step(name="slow", timeout="50ms", retry=AT_ONCE)(slow_async if is_async else slow)

    job = wf.run(store=store)

    (failed,) = [event.data["error"]["type"] for event in store.read(job.job_id) if event.type == "SubStepFailed"]
    assert (job.result(declared), failed) == (2, "HandlerTimeout")
    assert ("LateOutcome" in types_of(store, job.job_id)) is not is_async


def test_a_handler_that_outlives_its_timeout_and_the_grace_parks_the_job(store: Store) -> None:
    wf = Workflow("stuck")
    release = threading.Event()

    @wf.sub_step(timeout="20ms", retry=AT_ONCE)
    def stuck() -> None:
        release.wait(30)

    job = run_blocking(wf, store=store, settings=Settings(grace_s=0.02))
    release.set()

    assert (job.status, "stuck handler" in job.snapshot["reason"]) == ("parked", True)
    assert types_of(store, job.job_id).count("SubStepStarted") == 1


def test_a_key_seen_before_gives_the_same_job_and_another_input_is_refused(store: Store) -> None:
    wf = Workflow("keyed", input=Order)
    ran: list[int] = []

    @wf.sub_step
    def cook(step: Step[Order]) -> None:
        ran.append(step.input.dishes)

    first = wf.run(Order(dishes=1), key="order-1", store=store)
    again = wf.run(Order(dishes=1), key="order-1", store=store)

    assert (first.job_id, ran) == (again.job_id, [1])
    with pytest.raises(KeyConflict):
        wf.run(Order(dishes=2), key="order-1", store=store)


def test_an_input_that_does_not_fit_is_refused_by_field_and_leaves_no_job(store: Store) -> None:
    from steplog.eventstore.store import HeadQuery

    wf = Workflow("input", input=Order)
    wf.sub_step(lambda: None)

    with pytest.raises(InputRefused, match="dishes"):
        run_blocking(wf, {"dishes": "many"}, store=store)
    assert store.heads(HeadQuery()) == []


def test_a_result_that_the_log_cannot_keep_fails_the_sub_step_with_its_path(store: Store) -> None:
    wf = Workflow("unkept")

    @wf.sub_step(retry=AT_ONCE)
    def measure() -> dict[str, list[float]]:
        return {"temperatures": [20.5, float("nan")]}

    job = wf.run(store=store)

    error = job.snapshot["error"]
    assert (error["type"], "result.temperatures[1]" in error["message"]) == (PayloadRefused.__name__, True)
    assert job.snapshot["phases"]["main"]["sub_steps"]["measure"]["attempts"] == 1


def test_a_checkpoint_of_an_attempt_that_is_over_is_refused(store: Store) -> None:
    wf = Workflow("late checkpoint")
    refused = threading.Event()

    @wf.sub_step(timeout="20ms", optional=True)
    def slow(step: Step) -> None:
        while not step.cancelled:
            time.sleep(0.005)
        try:
            step.checkpoint(1)
        except AttemptOver:
            refused.set()

    wf.run(store=store)

    assert refused.wait(30), "the thread outlives the run"


async def _arun(wf: Workflow, store: Store) -> str:
    return (await wf.arun(store=store)).status


def test_a_workflow_runs_inside_a_running_event_loop(store: Store) -> None:
    wf = Workflow("async")

    @wf.sub_step
    async def hello() -> None: ...

    assert asyncio.run(_arun(wf, store)) == "completed"


def test_run_inside_a_running_event_loop_says_what_to_write(store: Store) -> None:
    wf = Workflow("blocking")

    @wf.sub_step
    async def nested() -> None:
        wf.run(store=store)

    error = wf.run(store=store).snapshot["error"]

    assert "arun" in error["message"]


def test_waits_that_no_number_holds_any_more_are_as_long_as_the_longest(store: Store) -> None:
    wf, calls = Workflow("patient"), 0

    @wf.sub_step(retry=Retry(attempts=70, wait="1ms", max_wait="1ms", factor=1e9, jitter=0))
    def fail_often() -> None:
        nonlocal calls
        calls += 1
        if calls < 70:
            raise ValueError

    assert (wf.run(store=store).status, calls) == ("completed", 70)
