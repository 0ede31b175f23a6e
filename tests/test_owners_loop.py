"""The six rules of the owner's loop, with a store in between that says what a test wants it to say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from steplog import AttemptOver, Context, OwnershipLost, PlanMismatch, Retry, Step, Workflow
from steplog.engine.decider import Decision, decide
from steplog.engine.jobs import prepare, recorded_input
from steplog.engine.worker import Worker
from steplog.eventstore.chain import seal
from steplog.eventstore.clock import SystemClock
from steplog.eventstore.errors import JobNotFound, OutcomeUnknown, StoreUnavailable
from steplog.eventstore.events import ContextChanged, Event
from steplog.eventstore.store import Answer, Append, Code, Head, HeadQuery, Proposal, Store
from steplog.projections.evolve import fold
from steplog.projections.head import head_of

DONE_S_MAX = 10

Meddle = Callable[[Append, Callable[[], list[Answer]]], list[Answer]]
"""What answers an owner's append; calling what it is given is how the append gets into the real store."""


class Notes(Context):
    said: str = ""
    heard: str = ""


class MeddledStore:
    """A store whose appends pass through a test's hands, and which keeps what was sent."""

    def __init__(self, store: Store, meddle: Meddle) -> None:
        self._store = store
        self._meddle = meddle
        self.sent: list[Append] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, batch: Sequence[Append]) -> list[Answer]:
        (item,) = batch
        self.sent.append(item)
        return self._meddle(item, lambda: self._store.append(batch))


def run(wf: Workflow[Any, Any], store: Any) -> Any:
    """The ended job; a runner that waits for what will never come is a failure."""
    return asyncio.run(asyncio.wait_for(wf.arun(store=store), DONE_S_MAX))


def pass_on(item: Append, stored: Callable[[], list[Answer]]) -> list[Answer]:
    return stored()


def answered_once(code: Code, of_type: str) -> Meddle:
    """The first append with such an event is answered without being stored."""
    waiting = [code]

    def meddle(item: Append, stored: Callable[[], list[Answer]]) -> list[Answer]:
        if waiting and any(event.type == of_type for event in item.events):
            return [Answer(item.job_id, waiting.pop(), item.expected.version)]
        return stored()

    return meddle


def types_of(store: Store, job_id: str) -> list[str]:
    return [event.type for event in store.read(job_id)]


def an_operator_sets(store: Store, job_id: str, **values: Any) -> None:
    clock = SystemClock()

    def rule(head: Head, tail: Sequence[Event]) -> Proposal:
        state = fold(store.read(job_id, until=head.version))
        changed = ContextChanged(set=values, by="anna")
        events = seal(job_id, head.position, [changed], clock.now(), clock)
        return Proposal(events, head_of(state))

    store.append_locked(job_id, store.head(job_id).position, rule)


@pytest.mark.parametrize(
    ("code", "error"),
    [(Code.FENCED, OwnershipLost), (Code.MISSING, JobNotFound)],
)
def test_what_an_append_would_have_started_is_not_called_unless_it_is_stored(
    store: Store, code: Code, error: type[Exception]
) -> None:
    wf = Workflow("started")
    called: list[str] = []

    @wf.sub_step
    async def work() -> None:
        called.append("work")

    meddled: Any = MeddledStore(store, answered_once(code, "SubStepStarted"))
    with pytest.raises(error):
        run(wf, meddled)

    (head,) = store.heads(HeadQuery())
    assert called == []
    assert types_of(store, head.job_id) == ["JobCreated", "JobClaimed"]
    assert len(meddled.sent) == 1


def test_where_the_log_went_backwards_nothing_is_numbered_anew_and_the_job_parks(store: Store) -> None:
    wf = Workflow("regressed")
    called: list[str] = []

    @wf.sub_step
    async def work() -> None:
        called.append("work")

    meddled: Any = MeddledStore(store, answered_once(Code.REGRESSED, "SubStepStarted"))
    job = run(wf, meddled)

    assert (job.status, called) == ("parked", [])
    assert [[event.type for event in item.events] for item in meddled.sent[1:]] == [["JobParked"]]


def test_an_outcome_stays_until_it_is_recorded_although_somebody_else_appends_first(store: Store) -> None:
    wf = Workflow("conflict", context=Notes)

    @wf.sub_step
    def work(step: Step[Any, Notes]) -> int:
        an_operator_sets(store, step.job_id, heard="stop")
        step.context.said = "going on"
        return 7

    job = run(wf, store)

    assert (job.status, job.result(work)) == ("completed", 7)
    assert job.context == Notes(said="going on", heard="stop")
    assert types_of(store, job.job_id).count("SubStepCompleted") == 1


def test_a_tail_that_cannot_be_read_now_is_read_again(store: Store) -> None:
    wf = Workflow("away for reading", context=Notes)

    @wf.sub_step
    def work(step: Step[Any, Notes]) -> int:
        an_operator_sets(store, step.job_id, heard="stop")
        return 7

    class Unreadable(MeddledStore):
        failed = False

        def read(self, *place: Any) -> Iterator[Event]:
            if not self.failed:
                self.failed = True
                raise StoreUnavailable
            return store.read(*place)

    unreadable = Unreadable(store, pass_on)
    job = run(wf, unreadable)

    assert (job.result(work), job.context.heard, unreadable.failed) == (7, "stop", True)


def test_a_runner_that_has_to_stop_does_not_wait_for_a_store_that_is_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steplog.engine.runner.CLOSING_S_MAX", 0.01)
    wf = Workflow("away")
    wf.sub_step(name="work")(lambda: None)
    away = threading.Event()

    def meddle(item: Append, stored: Callable[[], list[Answer]]) -> list[Answer]:
        if "SubStepCompleted" in [event.type for event in item.events]:
            away.set()
            raise StoreUnavailable
        return stored()

    async def stopped() -> None:
        meddled: Any = MeddledStore(store, meddle)
        with Worker(meddled) as worker:
            owned, new_job = prepare(worker, wf, recorded_input(wf, None), None)
            store.create(new_job)
            runner = worker.runner(owned)
            running = asyncio.create_task(runner.run())
            await asyncio.to_thread(away.wait)
            runner.stop(0.0)
            with pytest.raises(OutcomeUnknown):
                await asyncio.wait_for(running, DONE_S_MAX)

    asyncio.run(stopped())


def test_a_checkpoint_that_was_not_stored_does_not_return(store: Store) -> None:
    wf = Workflow("checkpoint")
    told: list[str] = []

    @wf.sub_step
    async def work(step: Step) -> None:
        try:
            await step.checkpoint(1)
            told.append("durable")
        except AttemptOver:
            told.append("refused")

    meddled: Any = MeddledStore(store, answered_once(Code.FENCED, "SubStepCheckpointed"))
    with pytest.raises(OwnershipLost):
        run(wf, meddled)

    assert "durable" not in told


def test_whoever_takes_a_job_over_records_what_its_owner_left_unsettled(store: Store) -> None:
    wf = Workflow("left")

    @wf.sub_step
    async def work() -> None: ...

    meddled: Any = MeddledStore(store, answered_once(Code.FENCED, "SubStepCompleted"))
    with pytest.raises(OwnershipLost):
        run(wf, meddled)
    (head,) = store.heads(HeadQuery())
    with Worker(store) as heir:
        heir.claim(head.job_id, wf)

    left = types_of(store, head.job_id)[head.version :]
    assert left == ["JobClaimed", "SubStepInterrupted"]


def test_a_worker_whose_code_has_another_plan_takes_nothing_over(store: Store) -> None:
    wf, changed = Workflow("plan"), Workflow("plan")
    wf.sub_step(name="work")(lambda: 1 / 0)
    changed.sub_step(name="another")(lambda: None)
    job = run(wf, store)

    with Worker(store) as heir, pytest.raises(PlanMismatch, match="main/work is gone"):
        heir.claim(job.job_id, changed, resume_by="anna")

    assert store.head(job.job_id).version == job.version


@pytest.mark.parametrize("takes_effect", [True, False], ids=["applied", "not applied"])
def test_an_append_whose_outcome_is_unknown_is_sent_again_as_it_was_and_stored_once(
    store: Store, takes_effect: bool
) -> None:
    wf = Workflow("unknown")
    ran: list[str] = []

    @wf.sub_step
    def first() -> None:
        ran.append("first")

    @wf.sub_step(after=[first])
    def second() -> None:
        ran.append("second")

    seen: set[int] = set()

    def meddle(item: Append, stored: Callable[[], list[Answer]]) -> list[Answer]:
        if item.expected.version in seen:
            return stored()
        seen.add(item.expected.version)
        if takes_effect:
            stored()
        raise OutcomeUnknown

    meddled: Any = MeddledStore(store, meddle)
    job = run(wf, meddled)

    assert meddled.sent[::2] == meddled.sent[1::2]
    assert len(meddled.sent) == 2 * len(seen)
    assert (job.status, ran) == ("completed", ["first", "second"])
    assert [event.version for event in store.read(job.job_id)] == list(range(1, job.version + 1))


def test_a_retry_that_is_due_but_has_no_room_is_waited_for_in_peace(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf = Workflow("no room")
    phase = wf.phase("only", parallel=1)
    decisions: list[str] = []

    def counted(*given: Any) -> Decision:
        decisions.append("decided")
        return decide(*given)

    monkeypatch.setattr("steplog.engine.runner.decide", counted)

    @phase.sub_step(retry=Retry(attempts=2, wait="1ms", jitter=0))
    async def flaky(step: Step) -> None:
        if step.attempt == 1:
            raise ConnectionError

    @phase.sub_step
    async def long(step: Step) -> None:
        for _ in range(3000):
            await asyncio.sleep(0)

    job = run(wf, store)

    assert job.status == "completed"
    assert len(decisions) < 20


def test_a_completion_its_context_and_what_it_starts_are_one_append(store: Store) -> None:
    wf = Workflow("together", context=Notes)

    @wf.sub_step
    def say(step: Step[Any, Notes]) -> None:
        step.context.said = "hello"

    @wf.sub_step(after=[say])
    def hear(step: Step[Any, Notes]) -> None:
        step.context.heard = step.context.said

    meddled: Any = MeddledStore(store, pass_on)
    run(wf, meddled)

    assert [[event.type for event in item.events] for item in meddled.sent] == [
        ["PhaseStarted", "SubStepStarted"],
        ["ContextChanged", "SubStepCompleted", "SubStepStarted"],
        ["ContextChanged", "SubStepCompleted", "PhaseCompleted", "JobCompleted"],
    ]
