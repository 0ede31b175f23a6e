"""Whatever a handler, a condition or a policy does, the attempt has an outcome and the job goes on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from steplog import Context, Fatal, JobHandle, Retry, Settings, Skip, Step, Workflow, use
from steplog.engine.jobs import run_blocking
from steplog.eventstore.limits import PAYLOAD_BYTES_MAX
from steplog.eventstore.store import Answer, Append
from steplog.testing.memory import MemoryStore

DONE_S_MAX = 20
NUMBER: Any = 123
TWICE = Retry(attempts=2, wait=0, jitter=0)


class Unspeakable:
    def __bool__(self) -> bool:
        raise ValueError("neither")


class WithoutReason(Skip):
    def __init__(self) -> None:
        pass


class Halves(Context):
    one: str = ""
    two: str = ""


def run(wf: Workflow[Any, Any], store: MemoryStore | None = None) -> JobHandle[Any]:
    """The ended job; a runner that waits for what will never come is a failure."""
    return asyncio.run(asyncio.wait_for(wf.arun(store=store or MemoryStore()), DONE_S_MAX))


def sub_step_of(job: JobHandle[Any], name: str) -> Any:
    return job.snapshot["phases"]["main"]["sub_steps"][name]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("skip", "reason"), [(lambda: Skip(NUMBER), "123"), (WithoutReason, ""), (lambda: Skip("\x00"), "\\u0000")]
)
def test_a_skip_is_recorded_whatever_its_reason_is(skip: Callable[[], Skip], reason: str) -> None:
    wf = Workflow("skips")

    @wf.sub_step
    def raised() -> None:
        raise skip()

    @wf.sub_step(when=lambda job: skip())
    def returned() -> None: ...

    job = run(wf)

    recorded = [sub_step_of(job, name) for name in ("raised", "returned")]
    assert [(step["status"], step["reason"]) for step in recorded] == [("skipped", reason)] * 2


@pytest.mark.parametrize("when", [lambda job: sys.exit(1), lambda job: Unspeakable()])
def test_a_condition_that_ends_in_anything_but_an_answer_fails_its_sub_step(when: Callable[[Any], Any]) -> None:
    wf = Workflow("conditions")
    wf.sub_step(name="asked", optional=True, when=when)(lambda: None)

    job = run(wf)

    assert (job.status, sub_step_of(job, "asked")["status"]) == ("completed", "failed")


@pytest.mark.parametrize(
    ("report", "path"),
    [
        (lambda step: step.progress(float("nan")), "progress.done"),
        (lambda step: step.progress("half"), "progress.done"),
        (lambda step: step.progress(1, True), "progress.total"),
        (lambda step: step.checkpoint(nested(100)), "checkpoint.cursor"),
        (lambda step: step.checkpoint("x" * (PAYLOAD_BYTES_MAX - 10)), "checkpoint"),
        (lambda step: nested(100), "completion.result"),
        (lambda step: "x" * (PAYLOAD_BYTES_MAX - 10), "completion"),
    ],
)
def test_what_no_event_can_hold_fails_the_attempt_that_said_it(report: Callable[[Step], Any], path: str) -> None:
    wf = Workflow("reports")

    @wf.sub_step(retry=TWICE, optional=True)
    def handler(step: Step) -> Any:
        return report(step)

    step = sub_step_of(run(wf), "handler")

    assert (step["status"], step["attempts"], step["error"]["type"]) == ("failed", 1, "PayloadRefused")
    assert step["error"]["message"].startswith(path)


def test_context_fields_that_one_event_cannot_hold_together_fail_the_attempt_that_set_them() -> None:
    wf = Workflow("halves", context=Halves)

    @wf.sub_step(optional=True)
    def handler(step: Step[Any, Halves]) -> None:
        step.context.one = step.context.two = "x" * (PAYLOAD_BYTES_MAX // 2)

    job = run(wf)

    assert (job.status, sub_step_of(job, "handler")["error"]["type"]) == ("completed", "PayloadRefused")
    assert job.context == Halves()


def test_a_note_of_progress_is_escaped_and_cut() -> None:
    wf = Workflow("notes")

    @wf.sub_step
    def handler(step: Step) -> None:
        step.progress(1, 2, "\x00" + "x" * 100_000)

    assert sub_step_of(run(wf), "handler")["progress"]["note"].startswith("\\u0000xxx")


def test_more_tolerated_failures_than_one_event_can_name_are_counted() -> None:
    wf = Workflow("tolerant")

    def fail() -> None:
        raise ValueError("x" * 20_000)

    for number in range(300):
        wf.sub_step(name=f"s{number}", optional=True)(fail)

    job = run(wf)

    assert (job.status, job.warnings[-1]) == ("completed", "200 more failed")


def test_an_attempt_for_which_there_is_no_thread_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    wf = Workflow("threads")
    wf.sub_step(name="plain", optional=True)(lambda: None)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "steplog-main/plain":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert sub_step_of(run(wf), "plain")["error"]["message"] == "can't start new thread"


@pytest.mark.parametrize("timeout", [None, "1h"])
@pytest.mark.parametrize("by", ["itself", "others"])
def test_a_handler_that_is_cancelled_and_not_by_the_engine_has_failed(timeout: Any, by: str) -> None:
    wf = Workflow("cancelled by others")

    @wf.sub_step(timeout=timeout, optional=True)
    async def handler() -> None:
        own: Any = asyncio.current_task()
        if by == "itself":
            own.cancel()
        else:
            asyncio.get_running_loop().call_soon(own.cancel)
        await asyncio.sleep(DONE_S_MAX)

    step = sub_step_of(run(wf), "handler")

    assert (step["status"], step["error"]["type"]) == ("failed", "CancelledError")
    assert "not by steplog" in step["error"]["message"]


@pytest.mark.parametrize("timeout", [None, "1h"])
def test_a_handler_that_cancels_itself_and_returns_has_completed(timeout: Any) -> None:
    wf = Workflow("cancelled in vain")

    @wf.sub_step(timeout=timeout)
    async def handler() -> int:
        own: Any = asyncio.current_task()
        own.cancel()
        return 7

    assert run(wf).result(handler) == 7


def test_a_handler_that_does_not_let_itself_be_cancelled_does_not_keep_the_caller() -> None:
    wf = Workflow("stubborn")

    @wf.sub_step(timeout="10ms", retry=TWICE)
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    ended: list[JobHandle[Any]] = []
    patience = Settings(grace_s=0.02)
    caller = threading.Thread(
        target=lambda: ended.append(run_blocking(wf, store=MemoryStore(), settings=patience)), daemon=True
    )
    caller.start()
    caller.join(DONE_S_MAX)

    assert [job.status for job in ended] == ["parked"]


class SlowCheckpoints(MemoryStore):
    """A store in which a checkpoint takes until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        if any(event.type == "SubStepCheckpointed" for item in batch for event in item.events):
            self.go_on.wait(DONE_S_MAX)
        return super().append(batch)


def test_a_handler_that_stops_waiting_for_its_checkpoint_disturbs_nobody() -> None:
    wf, store = Workflow("impatient"), SlowCheckpoints()

    @wf.sub_step
    async def impatient(step: Step) -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(step.checkpoint(1), 0.01)
        store.go_on.set()
        return "went on"

    assert run(wf, store).result(impatient) == "went on"


def test_what_a_handler_does_with_its_cursor_later_is_not_in_the_log() -> None:
    wf = Workflow("cursor")
    seen: list[list[str]] = []

    @wf.sub_step(retry=TWICE)
    def handler(step: Step) -> None:
        done = step.cursor or []
        seen.append(list(done))
        if step.attempt == 1:
            done.append("checkpointed")
            step.checkpoint(done)
            done.append("not yet")
            raise ConnectionError

    run(wf)

    assert seen == [[], ["checkpointed"]]


def raises_over_it() -> Iterator[int]:
    try:
        yield 1
    finally:
        raise OSError("cannot close")


def swallows_it() -> Iterator[int]:
    with contextlib.suppress(BaseException):
        yield 1


@pytest.mark.parametrize("provider", [raises_over_it, swallows_it])
@pytest.mark.parametrize("is_async", [True, False])
def test_what_a_handler_raised_is_its_outcome_whatever_closing_its_resource_makes_of_it(
    provider: Callable[[], Iterator[int]], is_async: bool
) -> None:
    wf = Workflow("closing")

    async def handler_async(number: int = use(provider)) -> None:
        raise Fatal("no such account")

    def handler_plain(number: int = use(provider)) -> None:
        raise Fatal("no such account")

    wf.sub_step(name="handler", retry=TWICE)(handler_async if is_async else handler_plain)

    step = sub_step_of(run(wf), "handler")

    assert (step["attempts"], step["error"]["type"]) == (1, "Fatal")


def test_a_resource_that_cannot_be_closed_fails_the_attempt_that_returned() -> None:
    wf = Workflow("closing")

    @wf.sub_step
    def handler(number: int = use(raises_over_it)) -> int:
        return number

    assert sub_step_of(run(wf), "handler")["error"]["message"] == "cannot close"
