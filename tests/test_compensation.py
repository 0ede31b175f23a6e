"""Compensation: what a job has done is undone before it ends, the last first, each once per idempotency key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from operated_jobs import ANNA, Job, types
from shown_jobs import step_plan

from steplog import Context, Fatal, Retry, Skip, Step, Transaction, Workflow, result
from steplog.engine import actions, operators
from steplog.engine.allowed import allowed_actions, allowed_sub_step_actions
from steplog.engine.claiming import claim_of
from steplog.engine.decider import in_progress, next_due
from steplog.engine.errors import ActionRefused, DefinitionError
from steplog.engine.fork import fork
from steplog.engine.history import Loaded, load
from steplog.engine.jobs import resume_blocking
from steplog.eventstore.chain import Position
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.projections.resume_point import resume_point
from steplog.projections.snapshot import snapshot
from steplog.testing import Kit

NO_WAIT = Retry(attempts=3, wait=0.0, jitter=0)


class Trip(Context):
    hotel: str | None = None


def booking(
    done: list[str], *, fails: bool = True, on: Any = ("failed", "cancelled"), broken: set[str] | None = None
) -> Workflow[Any, Trip]:
    """Flight, hotel and car are booked one after the other; then the payment fails, and all of them are given back."""
    wf: Workflow[Any, Trip] = Workflow("booking", context=Trip, compensate_on=on)
    phase, last = wf.phase("book"), wf.phase("pay")
    broken = set() if broken is None else broken

    @phase.sub_step
    def flight() -> str:
        return "F1"

    @phase.sub_step(after=[flight])
    def hotel(step: Step[Any, Trip]) -> str:
        step.context.hotel = "H1"
        return "H1"

    @phase.sub_step(after=[hotel])
    def insurance() -> None: ...

    @phase.sub_step(after=[insurance])
    async def car() -> str:
        return "C1"

    @phase.compensate(flight)
    def give_flight_back(step: Step[Any, Trip], number: str = result(flight)) -> None:
        note("flight", number, step)

    @phase.compensate(hotel, retry=NO_WAIT)
    def give_hotel_back(step: Step[Any, Trip], number: str = result(hotel), car: str = result(car, default="")) -> None:
        note("hotel", number, step)

    @phase.compensate(car, timeout=5)
    async def give_car_back(step: Step[Any, Trip], number: str = result(car)) -> None:
        note("car", number, step)

    def note(what: str, number: str, step: Step[Any, Trip]) -> None:
        done.append(f"{number} {step.idempotency_key}")
        if what in broken:
            raise ConnectionError("nobody answers")

    @last.sub_step
    def pay() -> None:
        if fails:
            raise Fatal("no money")

    return wf


def numbers(done: list[str]) -> list[str]:
    return [each.partition(" ")[0] for each in done]


def of(store: Store, job_id: str) -> list[str]:
    return [
        f"{event.type.removeprefix('Compensation')} {event.data['sub_step']}"
        for event in store.read(job_id)
        if event.type.startswith("Compensation")
    ]


def test_a_job_that_fails_is_undone_in_the_reverse_order_of_completion(store: Store) -> None:
    done: list[str] = []
    job = booking(done).run(store=store)

    assert job.status == "failed"
    assert numbers(done) == ["C1", "H1", "F1"]
    assert of(store, job.job_id) == [
        "Started car", "Completed car", "Started hotel", "Completed hotel", "Started flight", "Completed flight",
    ]  # fmt: skip
    state = load(store, job.job_id).state
    assert state == job._state  # pyright: ignore[reportPrivateUsage]  # what the run foresaw
    assert (state["error"] or {})["message"] == "no money"
    kept = [step["idempotency_key"] for phase in state["phases"].values() for step in phase["sub_steps"].values()]
    assert len({*(each.partition(" ")[2] for each in done), *kept}) == 3 + len(kept), "keys of their own"


def test_a_job_that_completes_or_whose_workflow_does_not_ask_is_not_undone(sqlite_store: SQLiteStore) -> None:
    done: list[str] = []
    assert booking(done, fails=False).run(store=sqlite_store).status == "completed"
    job = booking(done, on=["cancelled"]).run(store=sqlite_store)
    assert (job.status, done) == ("failed", [])
    assert "resume" in allowed_actions(load(sqlite_store, job.job_id).state)


def test_a_job_that_is_cancelled_is_undone_by_a_worker_and_says_who_cancelled_it(store: Store) -> None:
    done: list[str] = []
    wf = booking(done, on=["cancelled"])
    job_id = wf.run(store=store).job_id

    cancelled = operators.cancel(store, job_id, by="anna", reason="changed her mind")
    assert cancelled.state["status"] == "queued"
    job = resume_blocking(wf, job_id, store, by="anna")

    assert (job.status, numbers(done)) == ("cancelled", ["C1", "H1", "F1"])
    (event,) = (event for event in store.read(job_id) if event.type == "JobCancelled")
    assert event.data == {"by": "anna", "reason": "changed her mind"}


def test_a_job_with_nothing_done_is_cancelled_at_once(sqlite_store: SQLiteStore) -> None:
    wf: Workflow[Any, Any] = Workflow("nothing", compensate_on=["cancelled"])

    @wf.sub_step
    def work() -> None:
        raise Fatal("at once")

    @wf.compensate(work)
    def undo() -> None: ...

    job_id = wf.run(store=sqlite_store).job_id
    assert operators.cancel(sqlite_store, job_id, by="anna").state["status"] == "cancelled"


def test_a_running_job_that_is_cancelled_is_undone_once_what_runs_has_settled(steplog: Kit) -> None:
    wf: Workflow[Any, Any] = Workflow("running", compensate_on=["cancelled"])
    undone: list[str] = []

    @wf.sub_step
    def one() -> None: ...

    @wf.compensate(one)
    def undo_one() -> None:
        undone.append("one")

    @wf.sub_step(after=[one])
    async def cancels(step: Step) -> None:
        operators.cancel(steplog.store, step.job_id, by="anna", clock=steplog.clock)

    @wf.compensate(cancels)
    def undo_cancels() -> None:
        undone.append("cancels")

    after = wf.sleep("1h", after=[cancels])
    job = steplog.run_blocking(wf)
    assert (job.status, undone) == ("cancelled", ["cancels", "one"])
    assert after.key


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_compensation_is_retried_under_its_key_and_then_waits_for_a_person(store: Store) -> None:
    done: list[str] = []
    broken = {"hotel"}
    wf = booking(done, broken=broken)
    job_id = wf.run(store=store).job_id

    state = load(store, job_id).state
    assert state["status"] == "parked"
    assert "book/hotel is not undone: nobody answers" in (state["reason"] or "")
    assert numbers(done) == ["C1", "H1", "H1", "H1"]
    assert len(set(done)) == 2
    assert [entry["sub_step"] for entry in resume_point(state)["run"]] == ["book/hotel", "book/flight"]
    broken.clear()
    job = resume_blocking(wf, job_id, store, by="anna")
    assert (job.status, numbers(done)) == ("failed", ["C1", "H1", "H1", "H1", "H1", "F1"])
    assert len(set(done)) == 3


def test_what_is_being_undone_can_only_be_forked_and_the_fork_does_it_again(sqlite_store: SQLiteStore) -> None:
    done: list[str] = []
    wf = booking(done)
    job_id = wf.run(store=sqlite_store).job_id
    state = load(sqlite_store, job_id).state
    assert allowed_actions(state) == ["fork"]
    assert [allowed_sub_step_actions(state, key) for key in wf.sub_steps] == [[]] * 5
    with pytest.raises(ActionRefused, match="it can only be forked"):
        operators.resume(sqlite_store, job_id, by="anna")
    with pytest.raises(ActionRefused):
        resume_blocking(wf, job_id, sqlite_store, by="anna")

    forked = fork(sqlite_store, job_id, by="anna").state["job_id"]
    again = resume_blocking(booking(done, fails=False), forked, sqlite_store, by="anna")
    started = [event.data["sub_step"] for event in sqlite_store.read(forked) if event.type == "SubStepStarted"]
    assert (again.status, sorted(started)) == ("completed", ["car", "flight", "hotel", "pay"])


def test_a_compensation_that_is_skipped_is_done_and_one_that_writes_the_context_has_failed(
    sqlite_store: SQLiteStore,
) -> None:
    wf: Workflow[Any, Trip] = Workflow("odd", context=Trip, compensate_on=["failed"])
    first, second = wf.phase("first"), wf.phase("second")

    @first.sub_step
    def writes() -> None: ...

    @first.sub_step(after=[writes])
    def skips() -> None: ...

    @first.compensate(skips)
    def undo_skips() -> None:
        raise Skip("nothing to undo")

    @first.compensate(writes, retry=NO_WAIT)
    def undo_writes(step: Step[Any, Trip]) -> None:
        step.context.hotel = "changed"

    @second.sub_step
    def fails() -> None:
        raise Fatal("at last")

    job = wf.run(store=sqlite_store)
    assert job.status == "parked"
    assert of(sqlite_store, job.job_id) == ["Started skips", "Completed skips", "Started writes", "Failed writes"]
    assert "the compensation of first/writes wrote hotel" in (load(sqlite_store, job.job_id).state["reason"] or "")


def test_a_compensation_that_takes_too_long_times_out_and_is_tried_again(sqlite_store: SQLiteStore) -> None:
    wf: Workflow[Any, Any] = Workflow("slow", compensate_on=["failed"])
    first, second = wf.phase("first"), wf.phase("second")

    @first.sub_step
    def work() -> None: ...

    @first.compensate(work, timeout=0.05, retry=NO_WAIT)
    async def undo(step: Step) -> None:
        await asyncio.sleep(60 if step.attempt == 1 else 0)

    @second.sub_step
    def fails() -> None:
        raise Fatal("at last")

    assert wf.run(store=sqlite_store).status == "failed"
    assert of(sqlite_store, wf.run(store=sqlite_store).job_id) == [
        "Started work", "Failed work", "Started work", "Completed work",
    ]  # fmt: skip


def test_a_compensation_in_a_transaction_has_its_effect_with_its_completion(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("transactional", compensate_on=["failed"])
    first, second = wf.phase("first"), wf.phase("second")

    @first.sub_step
    def insert(tx: Transaction) -> None:
        tx.execute("create table rooms (name text)")
        tx.execute("insert into rooms (name) values (%s)", ["blue"])

    @first.compensate(insert)
    def delete(tx: Transaction) -> None:
        tx.execute("delete from rooms")

    @second.sub_step
    def fails() -> None:
        raise Fatal("at last")

    assert wf.run(store=store).status == "failed"
    other: Workflow[Any, Any] = Workflow("looks")

    @other.sub_step
    def count(tx: Transaction) -> Any:
        return tx.execute("select count(*) from rooms").fetchall()[0][0]

    assert other.run(store=store).result(count) == 0


def test_a_checkpoint_of_a_compensation_is_not_kept_and_commits_nothing(store: Store) -> None:
    wf: Workflow[Any, Any] = Workflow("half way", compensate_on=["failed"])
    first, second = wf.phase("first"), wf.phase("second")
    cursors: list[Any] = []

    @first.sub_step
    def insert(tx: Transaction) -> None:
        tx.execute("create table keys (name text)")

    @first.compensate(insert, retry=NO_WAIT)
    def note(step: Step, tx: Transaction) -> None:
        cursors.append(step.cursor)
        tx.execute("insert into keys (name) values (%s)", ["blue"])
        step.checkpoint(1)
        if step.attempt == 1:
            raise ConnectionError("half-way")

    @second.sub_step
    def fails() -> None:
        raise Fatal("at last")

    job = wf.run(store=store)
    assert (job.status, cursors) == ("failed", [None, None])
    assert of(store, job.job_id)[-1] == "Completed insert"
    other: Workflow[Any, Any] = Workflow("looks")

    @other.sub_step
    def count(tx: Transaction) -> Any:
        return tx.execute("select count(*) from keys").fetchall()[0][0]

    assert other.run(store=store).result(count) == 1


@pytest.mark.parametrize("late", [True, False], ids=["a late job", "a cancelled job"])
def test_undoing_may_take_longer_than_what_runs_is_given_to_stop(steplog: Kit, late: bool) -> None:
    wf: Workflow[Any, Any] = Workflow("patient", compensate_on=["failed", "cancelled"], deadline="1h" if late else None)
    undone: list[int] = []

    @wf.sub_step
    def work() -> None: ...

    @wf.compensate(work)
    async def undo(step: Step) -> None:
        await asyncio.sleep(3600)
        undone.append(step.attempt)

    @wf.sub_step(after=[work])
    async def goes_on(step: Step) -> None:
        if not late:
            operators.cancel(steplog.store, step.job_id, by="anna", clock=steplog.clock)
        await asyncio.sleep(7200)

    after = wf.sub_step(name="after", after=[goes_on])(lambda: None)
    job = steplog.run_blocking(wf)
    assert (job.status, undone) == ("failed" if late else "cancelled", [1])
    error = load(steplog.store, job.job_id).state["error"]
    assert error is None if not late else (error or {})["sub_step"] == "goes_on" != after.name


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_killed_at_any_append_every_compensation_runs_to_its_end_in_order_and_once_per_key(steplog: Kit) -> None:
    """Requests are what a service sees: a repeated one has the key of the first."""
    served: dict[str, str] = {}

    def serve(done: str) -> None:
        number, _, key = done.partition(" ")
        served.setdefault(key, number)

    class Service(list[str]):
        def append(self, done: str) -> None:
            serve(done)
            super().append(done)

    steplog.assert_crash_safe_blocking(booking(Service()), effects=lambda: [*served.values()])
    assert set(served.values()) == {"C1", "H1", "F1"}


def test_an_owner_that_dies_while_undoing_leaves_an_interruption_and_the_next_one_goes_on() -> None:
    job = failed_with_two_done()
    assert [(of.sub_step, of.undoing) for of in in_progress(job.state)] == [("two", True)]
    job.dies()
    assert types(job.decided) == ["CompensationInterrupted", "CompensationStarted"]
    assert job.state["status"] == "compensating"
    job.completes("two")
    assert types(job.decided) == ["CompensationCompleted", "CompensationStarted"]
    job.completes("one")
    assert types(job.decided) == ["CompensationCompleted", "JobFailed"]
    assert job.state["error"] is not None


def test_a_compensation_that_kills_its_worker_parks_the_job() -> None:
    job = failed_with_two_done().dies().dies().dies()
    assert job.state["status"] == "parked"
    assert "the compensation of a/two was interrupted 3 times" in (job.state["reason"] or "")
    job.append(*actions.resume(job.state, ANNA))
    assert [of.attempt for of in in_progress(job.claim().state)] == [4]


def test_who_takes_over_a_job_decides_nothing_before_it_owns_it(steplog: Kit) -> None:
    """Parked in the append that claims it, the job would have had an owner for as long as that worker lives."""
    job = failed_with_two_done().dies().dies()
    before = Loaded(job.state, Position(job.state["version"], "0" * 64), 0)
    claimed, item = claim_of(steplog.clock, "w9", before, job.state["epoch"])
    assert [event.type for event in item.events] == ["JobClaimed", "CompensationInterrupted"]
    assert claimed.state["status"] == "compensating"


def test_a_compensation_handed_back_goes_on_with_the_next_owner() -> None:
    job = failed_with_two_done().handed_back()
    assert job.state["status"] == "queued"
    job.claim()
    assert (job.state["status"], [of.sub_step for of in in_progress(job.state)]) == ("compensating", ["two"])


def test_a_compensation_that_failed_for_good_parks_the_job_before_anything_else_is_undone() -> None:
    job = failed_with_two_done().fails("two")
    assert types(job.decided) == ["CompensationFailed", "JobParked"]
    assert job.state["status"] == "parked"


def test_waits_between_attempts_are_due_at_an_instant() -> None:
    job = failed_with_two_done()
    job.fails("two", error={"type": "E", "message": "m", "traceback": "", "retryable": True})
    assert in_progress(job.state) == []
    assert next_due(job.state, job.state["recorded_at"]) is not None


def failed_with_two_done() -> Job:
    retry = {"attempts": 3, "wait_s": 5.0, "factor": 1.0, "wait_s_max": 5.0, "jitter": 0.0}
    compensate = {"compensate": {"retry": retry}}
    steps = [step_plan("one", **compensate), step_plan("two", after=["a/one"], **compensate)]
    plan = {
        "phases": [{"name": "a", "sub_steps": steps}, {"name": "b", "sub_steps": [step_plan("fails")]}],
        "compensate_on": ["failed"],
    }
    return Job(plan).claim().completes("one").completes("two").fails("fails")


# --- what is seen, and declared --------------------------------------------------------------------------------------


def test_the_snapshot_says_what_is_undone(sqlite_store: SQLiteStore) -> None:
    state = load(sqlite_store, booking([]).run(store=sqlite_store).job_id).state
    steps = snapshot(state)["phases"]["book"]["sub_steps"]
    assert steps["car"]["compensation"]["status"] == "completed"
    assert "compensation" not in steps["insurance"]


def test_compensations_that_cannot_mean_anything_are_refused() -> None:
    wf: Workflow[Any, Any] = Workflow("refused")

    @wf.sub_step
    def one() -> int:
        return 1

    @wf.sub_step
    def two() -> int:
        return 2

    with pytest.raises(DefinitionError, match="takes a sub-step of refused"):
        wf.compensate(Workflow("other").sleep("1h"))(lambda: None)
    with pytest.raises(DefinitionError, match="may not have completed: give result"):

        @wf.compensate(one)
        def undo(number: int = result(two)) -> None: ...

    wf.compensate(two)(lambda: None)
    with pytest.raises(DefinitionError, match="declared twice"):
        wf.compensate(two)(lambda: None)
    with pytest.raises(DefinitionError, match="neither 'failed' nor 'cancelled'"):
        Workflow("ends", compensate_on=["completed"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  # what the checkers refuse
