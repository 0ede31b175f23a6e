"""What people do to jobs by hand, on real stores: appended once, beside a living owner, and folded like the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from steplog import Context, Fatal, Step, Workflow, result
from steplog.engine import fork as forking
from steplog.engine import operators
from steplog.engine.errors import ActionRefused, AmbiguousSubStep, InputRefused, SubStepNotFound, ValueRefused
from steplog.engine.fork import fork
from steplog.engine.history import load
from steplog.engine.jobs import resume_blocking
from steplog.engine.replay import refuse_mismatch, replay
from steplog.eventstore.chain import Position
from steplog.eventstore.errors import KeyConflict, OutcomeUnknown, PayloadRefused, WrongState
from steplog.eventstore.events import Event
from steplog.eventstore.store import HeadQuery, Rule, Store
from steplog.projections.evolve import fold

DONE_S_MAX = 10


class Order(BaseModel, frozen=True):
    dishes: int = 2
    broken: bool = True


class Kitchen(Context):
    chopped: list[str] = []
    table: int | None = None


class Calls(list[tuple[str, str]]):
    """Sub-steps that ran, each with its idempotency key."""

    def keys(self, name: str) -> list[str]:
        return [key for called, key in self if called == name]


def cooking(calls: Calls) -> Workflow[Order, Kitchen]:
    """Chops, fails to cook while the order is broken, serves and bills."""
    wf = Workflow("cooking", input=Order, context=Kitchen)
    kitchen, hall = wf.phase("kitchen"), wf.phase("hall")

    @kitchen.sub_step
    def chop(step: Step[Order, Kitchen]) -> list[str]:
        calls.append(("chop", step.idempotency_key))
        step.context.chopped = ["leek"] * step.input.dishes
        return step.context.chopped

    @kitchen.sub_step
    def cook(step: Step[Order, Kitchen], of: list[str] = result(chop)) -> int:
        calls.append(("cook", step.idempotency_key))
        if step.input.broken:
            raise Fatal("the pan fell")
        return len(of)

    @hall.sub_step
    def serve(step: Step[Order, Kitchen], dishes: int = result(cook)) -> int:
        calls.append(("serve", step.idempotency_key))
        step.context.table = dishes
        return dishes

    return wf


def types_of(store: Store, job_id: str, after: int = 0) -> list[str]:
    return [event.type for event in store.read(job_id, after)]


def assert_replays(store: Store, job_id: str) -> None:
    head = store.head(job_id)
    steps = list(replay(store, job_id, head.version))
    refuse_mismatch(head, *steps[-1])


class StoreInBetween:
    """A store that lets a test do something at the moment of an append."""

    def __init__(self, store: Store, before: Callable[[], object] = int, after: Callable[[], object] = int) -> None:
        self._store = store
        self._before, self._after = [before], [after]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append_locked(self, job_id: str, known: Position, rule: Rule, *, request_id: str | None = None) -> int:
        while self._before:
            self._before.pop()()
        version = self._store.append_locked(job_id, known, rule, request_id=request_id)
        while self._after:
            self._after.pop()()
        return version


def in_between(store: Store, **moments: Callable[[], object]) -> Any:
    return StoreInBetween(store, **moments)


# --- a failed job, mended by hand ------------------------------------------------------------------------------------


def test_a_failed_job_goes_on_with_an_edited_input_and_repeats_nothing(store: Store) -> None:
    calls = Calls()
    wf = cooking(calls)
    job = wf.run(Order(), store=store)
    assert job.status == "failed"
    operators.edit_input(store, job.job_id, {"broken": False}, by="anna", definition=wf)
    done = operators.retry(store, job.job_id, "cook", by="anna", reason="a new pan")
    assert [event.type() for event in done.events] == ["JobResumed", "SubStepReset"]
    assert store.head(job.job_id).columns.status == "queued"
    assert resume_blocking(wf, job.job_id, store, by="anna").status == "completed"
    assert [name for name, _ in calls] == ["chop", "cook", "cook", "serve"]
    assert len(set(calls.keys("cook"))) == 2
    assert_replays(store, job.job_id)


def test_resuming_after_an_edit_gives_what_failed_another_key(store: Store) -> None:
    calls = Calls()
    wf = cooking(calls)
    job = wf.run(Order(), store=store)
    operators.edit_input(store, job.job_id, {"broken": False}, by="anna", definition=wf)
    assert resume_blocking(wf, job.job_id, store, by="anna").status == "completed"
    assert len(set(calls.keys("cook"))) == 2


def test_what_is_completed_by_hand_is_what_others_need(store: Store) -> None:
    wf = cooking(Calls())
    job = wf.run(Order(), store=store)
    with pytest.raises(ValueRefused, match="result of kitchen/cook refused: Input should be a valid integer"):
        operators.complete(store, job.job_id, "cook", "seven", by="anna", definition=wf)
    operators.complete(store, job.job_id, "cook", 7, by="anna", reason="bought some", definition=wf)
    resumed = resume_blocking(wf, job.job_id, store, by="anna")
    assert (resumed.status, resumed.context.table) == ("completed", 7)


def test_a_reset_takes_the_context_back_and_runs_all_of_it_again(store: Store) -> None:
    calls = Calls()
    wf = cooking(calls)
    job = wf.run(Order(broken=False), store=store)
    version = store.head(job.job_id).version
    foreseen = operators.reset(store, job.job_id, "chop", by="anna", dry_run=True)
    assert store.head(job.job_id).version == version
    done = operators.reset(store, job.job_id, "chop", by="anna")
    assert done.events[-1].as_data()["sub_steps"] == foreseen.events[-1].as_data()["sub_steps"]
    assert done.state["context"] == {"chopped": [], "table": None}
    assert_replays(store, job.job_id)
    assert resume_blocking(wf, job.job_id, store, by="anna").status == "completed"
    assert len(set(calls.keys("chop"))) == len(calls.keys("chop")) == 2


def test_a_reset_goes_back_to_what_was_written_while_it_was_decided(store: Store) -> None:
    wf = cooking(Calls())
    job = wf.run(Order(broken=False), store=store)
    operators.reset(store, job.job_id, "serve", by="anna")
    meanwhile = in_between(
        store, before=lambda: operators.set_context(store, job.job_id, {"chopped": ["kale"]}, by="bo")
    )
    assert operators.reset(meanwhile, job.job_id, "chop", by="anna").state["context"] == {
        "chopped": ["kale"],
        "table": None,
    }


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        (lambda store, job_id: operators.skip(store, job_id, "bake", by="anna"), SubStepNotFound),
        (lambda store, job_id: operators.pause(store, job_id, by="engine"), ValueRefused),
        (lambda store, job_id: operators.pause(store, job_id, by=""), PayloadRefused),
        (lambda store, job_id: operators.skip(store, job_id, "serve", by="anna"), ActionRefused),
        (lambda store, job_id: operators.set_context(store, job_id, {"tabel": 1}, by="anna"), ValueRefused),
        (lambda store, job_id: operators.set_context(store, job_id, {}, unset=["tabel"], by="anna"), ValueRefused),
        (lambda store, job_id: operators.edit_input(store, job_id, float("nan"), by="anna"), PayloadRefused),
        (lambda store, job_id: operators.signal(store, job_id, "", by="anna"), PayloadRefused),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_the_log_as_it_is(
    store: Store, call: Callable[[Store, str], object], refusal: type[Exception]
) -> None:
    job = cooking(Calls()).run(Order(), store=store)
    with pytest.raises(refusal):
        call(store, job.job_id)
    assert store.head(job.job_id).version == job.version


def test_the_codes_types_refuse_an_input_and_a_context(store: Store) -> None:
    wf = cooking(Calls())
    job = wf.run(Order(), store=store)
    with pytest.raises(InputRefused):
        operators.edit_input(store, job.job_id, {"dishes": "many"}, by="anna", definition=wf)
    with pytest.raises(ValueRefused, match="table: Input should be a valid integer"):
        operators.set_context(store, job.job_id, {"table": "x"}, by="anna", definition=wf)


def test_a_name_in_two_phases_is_written_with_its_phase(sqlite_store: Store) -> None:
    wf = Workflow("twice")
    for phase in ("a", "b"):
        wf.phase(phase).sub_step(name="same")(lambda: None)
    job = wf.run(store=sqlite_store)
    with pytest.raises(AmbiguousSubStep, match="a/same, b/same"):
        operators.reset(sqlite_store, job.job_id, "same", by="anna")
    assert operators.reset(sqlite_store, job.job_id, "b/same", by="anna").events


# --- once, and beside others -----------------------------------------------------------------------------------------


def test_the_same_request_again_appends_nothing(store: Store) -> None:
    job = cooking(Calls()).run(Order(), store=store)
    done = [operators.cancel(store, job.job_id, by="anna", request_id="r1") for _ in range(2)]
    assert [each.repeated for each in done] == [False, True]
    assert types_of(store, job.job_id, job.version) == ["JobCancelRequested", "JobCancelled"]
    assert done[1].state["status"] == "cancelled"


def test_the_same_id_for_another_action_is_another_request(store: Store) -> None:
    job = cooking(Calls()).run(Order(), store=store)
    request_id = "r" * 255
    signalled = operators.signal(store, job.job_id, "approved", by="anna", request_id=request_id)
    cancelled = operators.cancel(store, job.job_id, by="anna", request_id=request_id)
    assert (signalled.repeated, cancelled.repeated, cancelled.state["status"]) == (False, False, "cancelled")


def test_a_signal_is_kept_once_under_its_id(store: Store) -> None:
    job = cooking(Calls()).run(Order(), store=store)
    for _ in range(2):
        operators.signal(store, job.job_id, "approved", {"by": 1}, by="anna", request_id="s1")
    (kept,) = load(store, job.job_id).state["signals"]["approved"]
    assert (kept["signal_id"], kept["payload"]) == ("s1", {"by": 1})


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_append_whose_outcome_is_unknown_is_sent_again_and_stored_once(store: Store, when: str) -> None:
    def breaks() -> None:
        raise OutcomeUnknown()

    job = cooking(Calls()).run(Order(), store=store)
    done = operators.cancel(in_between(store, **{when: breaks}), job.job_id, by="anna")
    assert (done.repeated, done.state["status"]) == (False, "cancelled")
    assert types_of(store, job.job_id, job.version) == ["JobCancelRequested", "JobCancelled"]


def test_what_others_appended_meanwhile_is_folded_before_it_is_decided(store: Store) -> None:
    job = cooking(Calls()).run(Order(), store=store)
    meanwhile = in_between(store, before=lambda: operators.cancel(store, job.job_id, by="bo"))
    with pytest.raises(ActionRefused) as refused:
        operators.resume(meanwhile, job.job_id, by="anna")
    assert (refused.value.status, refused.value.allowed) == ("cancelled", ["fork"])


def test_an_owner_goes_on_from_what_a_person_did_while_it_ran(store: Store) -> None:
    wf = Workflow("long", context=Kitchen)
    started = asyncio.Event()
    go_on = asyncio.Event()

    @wf.sub_step
    async def long(step: Step[Any, Kitchen]) -> str:
        started.set()
        await go_on.wait()
        return "done"

    @wf.sub_step(after=[long])
    def never() -> None:
        raise AssertionError("skipped by hand")

    @wf.sub_step(after=[long, never])
    def last(step: Step[Any, Kitchen], said: str = result(long)) -> tuple[str, int | None]:
        return said, step.context.table

    async def interfere() -> None:
        await started.wait()
        (head,) = store.heads(HeadQuery(limit=1))
        await asyncio.to_thread(lambda: operators.set_context(store, head.job_id, {"table": 5}, by="anna"))
        with pytest.raises(ActionRefused) as refused:
            await asyncio.to_thread(lambda: operators.skip(store, head.job_id, "never", by="anna"))
        assert refused.value.blocked_by == ["main/long"]
        await asyncio.to_thread(lambda: operators.skip(store, head.job_id, "long", by="anna"))
        await asyncio.to_thread(lambda: operators.skip(store, head.job_id, "never", by="anna"))
        go_on.set()

    async def both() -> Any:
        running = asyncio.create_task(wf.arun(store=store))
        await interfere()
        return await running

    job = asyncio.run(asyncio.wait_for(both(), DONE_S_MAX))
    assert job.status == "completed"
    assert job.context.table == 5
    skipped = {
        name for name, each in job.snapshot["phases"]["main"]["sub_steps"].items() if each["status"] == "skipped"
    }
    assert skipped == {"long", "never", "last"}
    assert "LateOutcome" in types_of(store, job.job_id)
    assert_replays(store, job.job_id)


# --- forks -----------------------------------------------------------------------------------------------------------


def version_of(store: Store, job_id: str, type: str) -> int:
    return next(event.version for event in store.read(job_id) if event.type == type)


def test_a_fork_goes_on_with_an_edited_input_and_repeats_nothing_settled(store: Store) -> None:
    calls = Calls()
    wf = cooking(calls)
    parent = wf.run(Order(), store=store)
    made = fork(store, parent.job_id, by="anna", input={"broken": False}, definition=wf)
    fork_id = made.state["job_id"]
    assert types_of(store, fork_id) == ["JobForked", "SubStepInherited"]
    assert store.head(fork_id).columns.status == "queued"
    assert resume_blocking(wf, fork_id, store, by="anna").status == "completed"
    assert [name for name, _ in calls] == ["chop", "cook", "cook", "serve"]
    assert len(set(calls.keys("cook"))) == 2
    assert store.head(parent.job_id).version == parent.version
    assert_replays(store, fork_id)


def test_a_fork_begins_with_its_parents_hash_and_folds_without_it(store: Store) -> None:
    parent = cooking(Calls()).run(Order(broken=False), store=store)
    at = version_of(store, parent.job_id, "PhaseCompleted")
    state = fork(store, parent.job_id, at=at, by="anna").state
    events = list(store.read(state["job_id"]))
    (then,) = store.read(parent.job_id, at - 1, at)
    assert events[0].data["parent_hash"] == then.hash
    assert fold(events) == state
    assert {key: step["status"] for key, step in state["phases"]["kitchen"]["sub_steps"].items()} == {
        "chop": "completed",
        "cook": "completed",
    }
    assert state["phases"]["hall"]["sub_steps"]["serve"]["attempts"] == 0


def test_a_fork_at_any_version_has_the_context_of_that_version(store: Store) -> None:
    parent = cooking(Calls()).run(Order(broken=False), store=store)
    for event in list(store.read(parent.job_id)):
        at = event.version
        unsettled = event.type == "ContextChanged"  # what it wrote comes with its completion, one event later
        then = load(store, parent.job_id, at - unsettled).state
        made = fork(store, parent.job_id, at=at, by="anna", dry_run=True)
        assert made.state["context"] == then["context"]
        assert made.state["done"] == then["done"]


def test_what_was_in_flight_or_failed_is_pending_in_a_fork(store: Store) -> None:
    parent = cooking(Calls()).run(Order(), store=store)
    started = [event.version for event in store.read(parent.job_id) if event.type == "SubStepStarted"]
    for at in (started[-1], parent.version):
        kitchen = fork(store, parent.job_id, at=at, by="anna").state["phases"]["kitchen"]["sub_steps"]
        assert (kitchen["chop"]["status"], kitchen["cook"]["status"]) == ("completed", "pending")


def test_an_edited_field_of_a_fork_is_nobody_elses_and_outlives_a_reset(store: Store) -> None:
    wf = cooking(Calls())
    parent = wf.run(Order(broken=False), store=store)
    made = fork(store, parent.job_id, values={"chopped": ["kale"]}, unset=["table"], by="anna", definition=wf)
    assert made.state["context"] == {"chopped": ["kale"]}
    again = operators.reset(store, made.state["job_id"], "chop", by="anna")
    assert again.state["context"] == {"chopped": ["kale"]}


def test_a_reset_in_a_fork_goes_back_behind_what_was_inherited(store: Store) -> None:
    parent = cooking(Calls()).run(Order(broken=False), store=store)
    made = fork(store, parent.job_id, by="anna")
    assert made.state["context"] == {"chopped": ["leek", "leek"], "table": 2}
    again = operators.reset(store, made.state["job_id"], "chop", by="anna")
    assert again.state["context"] == {"chopped": [], "table": None}


def test_a_fork_of_a_fork_inherits_what_that_inherited(store: Store) -> None:
    parent = cooking(Calls()).run(Order(broken=False), store=store)
    first = fork(store, parent.job_id, by="anna").state
    second = fork(store, first["job_id"], by="anna").state
    assert (second["context"], second["done"]) == (first["context"], first["done"])
    assert_replays(store, second["job_id"])


def test_the_same_request_is_the_same_fork(store: Store) -> None:
    parent = cooking(Calls()).run(Order(), store=store)
    first, again = (fork(store, parent.job_id, by="anna", request_id="r1") for _ in range(2))
    assert first.state == again.state
    assert (first.repeated, again.repeated) == (False, True)
    with pytest.raises(KeyConflict):
        fork(store, parent.job_id, by="anna", request_id="r1", values={"table": 1})


def test_a_fork_that_was_not_made_to_its_end_runs_nowhere_until_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wf = cooking(Calls())
    parent = wf.run(Order(broken=False), store=store)
    monkeypatch.setattr(forking, "EVENTS_MAX", 1)

    def dies() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fork(in_between(store, before=dies), parent.job_id, by="anna", request_id="r1")
    (head,) = store.heads(HeadQuery(status="queued"))
    assert head.columns.wake_at is None
    with pytest.raises(WrongState, match="allowed now: cancel"):
        resume_blocking(wf, head.job_id, store, by="anna")
    with pytest.raises(ActionRefused, match="not made to its end"):
        fork(store, head.job_id, by="anna")

    whole = fork(store, parent.job_id, by="anna", request_id="r1")

    assert (whole.state["job_id"], whole.repeated) == (head.job_id, True)
    assert types_of(store, head.job_id) == ["JobForked"] + ["SubStepInherited"] * 3
    assert resume_blocking(wf, head.job_id, store, by="anna").status == "completed"
    assert_replays(store, head.job_id)


def test_a_fork_that_is_cancelled_while_it_is_made_stays_cancelled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = cooking(Calls()).run(Order(broken=False), store=store)
    monkeypatch.setattr(forking, "EVENTS_MAX", 1)

    def cancelled() -> None:
        (head,) = store.heads(HeadQuery(status="queued"))
        operators.cancel(store, head.job_id, by="bo")

    with pytest.raises(ActionRefused, match="not made to its end"):
        fork(in_between(store, before=cancelled), parent.job_id, by="anna")


def test_events_are_read_back_from_a_fork_as_they_were_foreseen(store: Store) -> None:
    parent = cooking(Calls()).run(Order(), store=store)
    made = fork(store, parent.job_id, by="anna", reason="try another pan")
    stored: list[Event] = list(store.read(made.state["job_id"]))
    assert [event.data for event in stored] == [event.as_data() for event in made.events]
