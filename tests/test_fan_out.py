"""Fan-outs: one sub-step that does the same for each item of a list that only the run knows."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any, cast

import pytest
from operated_jobs import ANNA, Job, types
from pydantic import BaseModel
from shown_jobs import step_plan

from steplog import Context, Fatal, Retry, Settings, Skip, Step, Transaction, Workflow, result
from steplog.engine import actions, operators
from steplog.engine import facts as fact
from steplog.engine.decider import idempotency_key, in_progress, next_due
from steplog.engine.errors import ActionRefused, DefinitionError, NoResult, PlanMismatch, SubStepNotFound
from steplog.engine.facts import Listed
from steplog.engine.fork import fork
from steplog.engine.history import load
from steplog.engine.jobs import resume_blocking, run_blocking
from steplog.eventstore import events as ev
from steplog.eventstore.clock import later
from steplog.eventstore.events import Event
from steplog.eventstore.sqlite import SQLiteStore
from steplog.eventstore.store import Store
from steplog.projections.fan_out import counts_of, item_of, items_of
from steplog.projections.plan import Key
from steplog.projections.readiness import sub_step_of
from steplog.projections.resume_point import resume_point
from steplog.projections.snapshot import snapshot
from steplog.projections.state import SettledItem, State, SubStepState
from steplog.testing import Kit

KEY = "main/import_dish"
NO_WAIT = Retry(attempts=2, wait=0.0, jitter=0)


class Dish(BaseModel, frozen=True):
    name: str
    price: int


class Kitchen(Context):
    seen: list[str] = []
    first: str | None = None


MENU = [Dish(name=f"dish {number}", price=number) for number in range(7)]


def of_items(store: Store, job_id: str, kind: str) -> list[str]:
    return [event.data["item"] for event in store.read(job_id) if event.type == kind and "item" in event.data]


def statuses(state: State, key: Key = KEY) -> dict[str, str]:
    return {item.key: item.state["status"] for item in items_of(sub_step_of(state, key))}


def events_of(store: Store, job_id: str, kind: str) -> list[Event]:
    return [event for event in store.read(job_id) if event.type == kind]


def importing(broken: set[str], **options: Any) -> tuple[Workflow[Any, Kitchen], Counter[str]]:
    """A menu whose dishes fail while they are named in `broken`, and how often each was imported."""
    wf: Workflow[Any, Kitchen] = Workflow("importing", context=Kitchen)
    calls: Counter[str] = Counter()

    @wf.map(items=MENU, key=lambda dish: dish.name, **{"retry": NO_WAIT, "parallel": 2, **options})
    def import_dish(dish: Dish, step: Step[Any, Kitchen]) -> int:
        calls[dish.name] += 1
        if dish.name in broken:
            raise ValueError("no price")
        return dish.price

    @wf.sub_step
    def total(prices: list[int] = result(import_dish, default=[0])) -> int:
        return sum(prices)

    return wf, calls


# --- what comes of it ------------------------------------------------------------------------------------------------


def test_each_item_runs_once_and_the_results_stand_in_the_items_order(store: Store) -> None:
    wf: Workflow[Any, Kitchen] = Workflow("menu", context=Kitchen)

    @wf.sub_step
    def list_dishes() -> list[Dish]:
        return MENU

    @wf.map(items=result(list_dishes), key=lambda dish: dish.name, parallel=3)
    async def import_dish(dish: Dish, step: Step[Any, Kitchen]) -> int:
        await asyncio.sleep(0.002 * (7 - dish.price))
        return dish.price

    @wf.sub_step
    def total(prices: list[int] = result(import_dish)) -> list[int]:
        return prices

    job = wf.run(store=store)

    assert job.result(import_dish) == job.result(total) == list(range(7))
    assert sorted(of_items(store, job.job_id, "SubStepStarted")) == [dish.name for dish in MENU]
    assert load(store, job.job_id).state == job._state  # pyright: ignore[reportPrivateUsage]  # what the run foresaw


def test_every_item_has_an_idempotency_key_of_its_own_and_says_who_it_is(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("keys")
    seen: dict[str | None, str] = {}

    @wf.map(items=["a", "b"])
    def send(letter: str, step: Step) -> None:
        seen[step.item] = step.idempotency_key

    job = wf.run(store=sqlite_store)
    assert seen == {item: idempotency_key(job.job_id, "main/send", 1, item) for item in ("a", "b")}
    assert len({*seen.values(), idempotency_key(job.job_id, "main/send", 1)}) == 3


def test_a_list_that_is_empty_is_done_at_once(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("empty")

    @wf.map(items=lambda job: list[int]())
    def work(number: int) -> int:
        raise AssertionError(number)

    @wf.sub_step
    def after(done: list[int] = result(work)) -> int:
        return len(done)

    assert wf.run(store=sqlite_store).result(after) == 0


def test_the_items_may_be_a_function_of_the_job(sqlite_store: SQLiteStore) -> None:
    wf: Workflow[Any, Kitchen] = Workflow("of the context", context=Kitchen)
    first, second = wf.phase("first"), wf.phase("second")

    @first.sub_step
    def look(step: Step[Any, Kitchen]) -> None:
        step.context.seen = ["x", "y"]

    @second.map(items=lambda job: job.context.seen, when=lambda job: bool(job.context.seen))
    def double(letter: str) -> str:
        return letter * 2

    job = wf.run(store=sqlite_store)
    assert job.result(double) == ["xx", "yy"]
    assert events_of(sqlite_store, job.job_id, "SubStepExpanded")[0].data["when"] is True


def test_a_fan_out_whose_condition_says_no_is_skipped_unlisted(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("not now")

    @wf.map(items=lambda job: [1 // 0], when=lambda job: Skip("closed"))
    def work(number: int) -> int:
        return number

    job = wf.run(store=sqlite_store)
    with pytest.raises(NoResult, match="skipped: closed"):
        job.result(work)


def test_what_is_skipped_has_no_place_in_the_result(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("some")

    @wf.map(items=range(4))
    def odd(number: int) -> int:
        if number % 2 == 0:
            raise Skip("even")
        return number

    job = wf.run(store=sqlite_store)
    assert job.result(odd) == [1, 3]
    assert job.snapshot["phases"]["main"]["sub_steps"]["odd"]["items"]["skipped"] == 2


def test_items_in_transactions_have_their_effects_once(store: Store) -> None:
    wf = Workflow("in transactions")

    @wf.sub_step
    def make_table(tx: Transaction) -> None:
        tx.execute("create table dishes (name text primary key)")

    @wf.map(items=["a", "b", "c"], after=[make_table])
    def insert(name: str, tx: Transaction) -> str:
        tx.execute("insert into dishes (name) values (%s)", [name])
        return name

    @wf.sub_step(after=[insert])
    def count(tx: Transaction) -> Any:
        return tx.execute("select count(*) from dishes").fetchall()[0][0]

    job = wf.run(store=store)
    assert (job.result(insert), job.result(count)) == (["a", "b", "c"], 3)


# --- how many at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("of_phase", "of_items", "most"), [(None, 3, 3), (2, 5, 2), (4, 1, 1)])
def test_as_many_items_run_at_once_as_the_fan_out_and_its_phase_allow(
    of_phase: int | None, of_items: int, most: int, sqlite_store: SQLiteStore
) -> None:
    wf = Workflow("bounded")
    phase = wf.phase("p", parallel=of_phase)
    running = reached = 0

    @phase.map(items=range(12), parallel=of_items)
    async def work(number: int) -> None:
        nonlocal running, reached
        running += 1
        reached = max(reached, running)
        await asyncio.sleep(0.005)
        running -= 1

    wf.run(store=sqlite_store)
    assert reached == most


def test_sixteen_run_at_once_where_nothing_is_said(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("unbounded")
    together = threading.Barrier(16)

    @wf.map(items=range(16))
    def meet(number: int) -> None:
        together.wait(timeout=10)

    assert wf.run(store=sqlite_store).status == "completed"


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_item_that_fails_for_good_lets_no_other_begin_and_resuming_runs_what_is_left(store: Store) -> None:
    broken = {"dish 2"}
    wf, calls = importing(broken, parallel=1)

    failed = wf.run(store=store)

    assert failed.status == "failed"
    error = load(store, failed.job_id).state["error"]
    assert error is not None
    assert error["message"] == "1 of 7 items failed: dish 2: ValueError no price"
    assert calls["dish 2"] == 2
    assert calls["dish 3"] == 0
    broken.clear()
    resumed = resume_blocking(wf, failed.job_id, store, by="anna")
    assert resumed.result(wf.sub_steps["main/total"]) == sum(range(7))
    assert calls == Counter({dish.name: 1 for dish in MENU}) + Counter({"dish 2": 2})


def test_resuming_runs_the_failed_item_again_then_the_rest_and_nothing_that_is_done() -> None:
    job = Job({"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 2})]}]}).claim()
    job.item_completes("i0").item_fails("i1").item_completes("i2")
    assert job.state["status"] == "failed"
    job.append(*actions.resume(job.state, ANNA))
    assert statuses(job.state) == {"i0": "completed", "i1": "pending", "i2": "completed"}
    assert job.claim().item_completes("i1").state["status"] == "completed"


def test_failures_of_an_optional_fan_out_are_tolerated_and_the_others_go_on(store: Store) -> None:
    wf, calls = importing({"dish 2", "dish 3"}, optional=True)

    job = wf.run(store=store)

    assert job.status == "completed"
    assert job.warnings == [
        "main/import_dish failed: 2 of 7 items failed: dish 2: ValueError no price; dish 3: ValueError no price"
    ]
    assert len(calls) == 7
    assert job.result(wf.sub_steps["main/total"]) == 0


def test_a_retry_of_a_tolerated_failure_runs_the_failed_items_and_no_others(sqlite_store: SQLiteStore) -> None:
    broken = {"dish 2"}
    wf: Workflow[Any, Any] = Workflow("again")
    calls: Counter[int] = Counter()

    @wf.map(items=range(4), optional=True)
    def work(number: int) -> int:
        calls[number] += 1
        if number == 2 and broken:
            raise ValueError
        return number

    go_on = wf.wait_for_signal("go", after=[work], timeout=0.05, optional=True)

    @wf.sub_step(after=[go_on])
    def stop() -> None:
        raise Fatal("stop here")

    job = wf.run(store=sqlite_store)
    assert job.status == "failed"
    broken.clear()
    operators.reset(sqlite_store, job.job_id, "stop", by="anna")
    with pytest.raises(ActionRefused, match="went on without it"):
        operators.retry(sqlite_store, job.job_id, "work", by="anna")
    assert calls == {0: 1, 1: 1, 2: 1, 3: 1}


def test_a_key_is_text_or_a_whole_number(sqlite_store: SQLiteStore) -> None:
    wf: Workflow[Any, Any] = Workflow("keys")

    @wf.map(items=[7, 8], key=lambda number: number)
    def work(number: int, step: Step) -> str:
        return f"{step.item}"

    @wf.map(items=[7, 8], key=lambda number: cast(Any, number / 2), optional=True)
    def halve(number: int) -> None: ...

    job = wf.run(store=sqlite_store)

    assert job.result(work) == ["7", "8"]
    error = job.snapshot["phases"]["main"]["sub_steps"]["halve"]["error"]
    assert (error["type"], "key= made float of an item" in error["message"]) == ("ItemsRefused", True)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (lambda job: 1 // 0, "zero"),
        (lambda job: ["a", "a"], "two items have the key 'a'"),
        (lambda job: ["", "b"], "key of item 0"),
        (lambda job: [3.5], "nothing says what its key is"),
        (lambda job: 7, "not iterable"),
        (lambda job: [object()], "nothing says what its key is"),
        (lambda job: [True], "nothing says what its key is"),
    ],
)
def test_what_is_no_list_of_items_fails_the_sub_step_and_a_person_may_let_it_be_listed_again(
    items: Any, message: str, sqlite_store: SQLiteStore
) -> None:
    wf: Workflow[Any, Any] = Workflow("unlisted")
    mended: list[Any] = []

    @wf.map(items=lambda job: mended or items(job), retry=3)
    def work(item: Any) -> Any:
        return item

    job = wf.run(store=sqlite_store)
    assert job.status == "failed"
    (failure,) = events_of(sqlite_store, job.job_id, "SubStepFailed")
    assert message in failure.data["error"]["message"]
    mended.append("x")
    assert resume_blocking(wf, job.job_id, sqlite_store, by="anna").result(work) == ["x"]


def test_an_item_of_another_type_is_refused_with_its_path(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("typed")

    @wf.map(items=[Dish(name="a", price=1), "b"], key=str)  # type: ignore[arg-type]  # what the checkers refuse
    def work(item: Dish) -> None: ...

    job = wf.run(store=sqlite_store)
    (failure,) = events_of(sqlite_store, job.job_id, "SubStepFailed")
    assert failure.data["error"]["type"] == "PayloadRefused"
    assert "items[1]" in failure.data["error"]["message"]


def test_the_deadline_of_a_fan_out_is_for_all_its_items(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("late")

    @wf.map(items=range(3), parallel=1, deadline=0.1)
    async def work(number: int) -> None:
        await asyncio.sleep(60 if number else 0)

    job = wf.run(store=sqlite_store)
    state = load(sqlite_store, job.job_id).state
    assert job.status == "failed"
    assert (sub_step_of(state, "main/work")["error"] or {})["type"] == "DeadlineExceeded"
    assert statuses(state, "main/work") == {"0": "completed", "1": "interrupted", "2": "pending"}


def test_a_person_who_lets_a_fan_out_go_on_gives_it_its_time_again() -> None:
    """Its deadline stands in the state: it began with the listing, and begins again with what a person does."""
    steps = [step_plan("import_dish", map={"parallel": 1}, deadline_s=60.0)]
    paused = Job({"phases": [{"name": "main", "sub_steps": steps}]}).claim()
    began = paused.of(KEY)["deadline_at"]
    failed = Job({"phases": [{"name": "main", "sub_steps": steps}]}).claim().item_fails("i0")
    assert failed.state["status"] == "failed"

    paused.append(*actions.pause(paused.state, ANNA))
    paused.item_completes("i0")
    paused.append(*actions.resume(paused.state, ANNA))
    failed.append(*actions.resume(failed.state, ANNA))

    for job in (paused, failed):
        assert job.of(KEY)["deadline_at"] == later(job.state["recorded_at"], 60.0) > began


def test_a_timeout_is_for_each_attempt_of_an_item(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("slow")

    @wf.map(items=range(2), timeout=0.05, retry=NO_WAIT)
    async def work(number: int, step: Step) -> int:
        if number == 1 and step.attempt == 1:
            await asyncio.sleep(60)
        return number

    job = wf.run(store=sqlite_store)
    assert job.result(work) == [0, 1]
    (failure,) = events_of(sqlite_store, job.job_id, "SubStepFailed")
    assert (failure.data["item"], failure.data["error"]["type"]) == ("1", "HandlerTimeout")


# --- the context -----------------------------------------------------------------------------------------------------


def test_two_items_that_write_one_field_are_siblings_and_disagree(sqlite_store: SQLiteStore) -> None:
    wf: Workflow[Any, Kitchen] = Workflow("conflict", context=Kitchen)

    @wf.map(items=["a", "b"], parallel=1)
    def write(letter: str, step: Step[Any, Kitchen]) -> None:
        step.context.first = letter

    job = wf.run(store=sqlite_store)
    assert (job.status, job.context.first) == ("parked", "a")
    assert "main/write[b] wrote first" in (load(sqlite_store, job.job_id).state["reason"] or "")


def test_what_follows_a_fan_out_may_write_what_its_items_wrote(sqlite_store: SQLiteStore) -> None:
    wf: Workflow[Any, Kitchen] = Workflow("follows", context=Kitchen)

    @wf.map(items=["a", "b"])
    def write(letter: str, step: Step[Any, Kitchen]) -> None:
        if letter == "a":
            step.context.first = letter

    @wf.sub_step(after=[write])
    def overwrite(step: Step[Any, Kitchen]) -> None:
        step.context.first = "all"

    job = wf.run(store=sqlite_store)
    assert (job.status, job.context.first) == ("completed", "all")
    assert load(sqlite_store, job.job_id).state["writers"]["first"].keys() >= {"main/write\na", "main/overwrite"}


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_a_fan_out_is_crash_safe_at_every_append(steplog: Kit) -> None:
    wf = Workflow("safe")
    sent: list[str] = []

    @wf.sub_step
    def letters() -> list[str]:
        return ["a", "b", "c", "d"]

    @wf.map(items=result(letters), parallel=2, retry=NO_WAIT)
    def send(letter: str, step: Step) -> str:
        if letter == "b" and step.attempt == 1:
            raise ConnectionError
        if step.idempotency_key not in sent:
            sent.append(step.idempotency_key)
        return letter

    @wf.map(items=result(send))
    async def confirm(letter: str) -> int:
        return ord(letter)

    @wf.sub_step
    def total(numbers: list[int] = result(confirm)) -> int:
        return sum(numbers)

    asyncio.run(steplog.assert_crash_safe(wf))


def test_an_expansion_that_was_cut_off_goes_on_or_begins_anew() -> None:
    plan = {"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 2})]}]}
    many = [Listed(f"k{number}", number) for number in range(9500)]
    job = Job(plan)
    job.items[KEY] = many

    job.claim()
    assert types(job.decided) == ["PhaseStarted", *["SubStepExpanded"] * 8]
    assert len(job.of(KEY)["items"]["keys"]) == 8000
    half = job.state
    assert types(job.dies().decided) == [*["SubStepExpanded"] * 2, *["SubStepStarted"] * 2]
    assert job.of(KEY)["items"]["keys"] == [item.key for item in many]

    job.state = half
    job.items[KEY] = [Listed("other", 1), *many[1:5]]
    assert types(job.dies().decided) == ["SubStepExpanded", *["SubStepStarted"] * 2]
    assert job.of(KEY)["items"]["keys"] == ["other", "k1", "k2", "k3", "k4"]


def test_while_a_long_list_is_recorded_another_fan_out_waits_for_its_own() -> None:
    """It is no plain sub-step meanwhile: without items there is nothing to call its handler with."""
    steps = [step_plan("import_dish", map={"parallel": 1}), step_plan("draw_dish", map={"parallel": 1})]
    job = Job({"phases": [{"name": "main", "sub_steps": steps}]})
    job.items[KEY] = [Listed(f"k{number}", number) for number in range(9500)]

    job.claim()
    assert types(job.decided) == ["PhaseStarted", *["SubStepExpanded"] * 8]
    assert types(job.decide().decided) == [*["SubStepExpanded"] * 3, *["SubStepStarted"] * 2]
    assert {of.item for of in in_progress(job.state)} == {"k0", "i0"}


def test_an_item_that_failed_for_good_goes_on_from_its_checkpoint_once_it_may() -> None:
    job = Job({"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 1})]}]}).claim()
    (of,) = in_progress(job.state)
    job.decide(fact.CheckpointReached(of, 7, {"seen": ["a"]})).item_fails("i0")
    job.append(*actions.resume(job.state, ANNA))
    job.claim()
    item = item_of(job.of(KEY), "i0")
    assert (item["status"], item["cursor"], item["draft"]) == ("in_progress", 7, {"set": {"seen": ["a"]}})


def test_items_that_kill_their_worker_run_one_at_a_time_and_park_the_job() -> None:
    plan = {"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 3})]}]}
    job = Job(plan).claim()
    assert job.of(KEY)["items"]["in_progress"].keys() == {"i0", "i1", "i2"}
    job.dies().dies()
    job.state["recorded_at"] = later(job.state["recorded_at"], 60.0)  # they back off
    job.decide()
    assert len(job.of(KEY)["items"]["in_progress"]) == 1, "each may be what kills the process"
    job.dies()
    assert job.state["status"] == "parked"
    assert job.state["reason"] == "crash loop: main/import_dish[i0] was interrupted 3 times"


def test_an_outcome_of_an_item_that_is_not_there_any_more_comes_late() -> None:
    job = Job({"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 2})]}]}).claim()
    (of, _) = in_progress(job.state)
    job.append(*actions.complete(job.state, KEY, ANNA, [1]))
    job.append(*actions.reset(job.state, KEY, ANNA, {}, group="g"))
    job.items[KEY] = [Listed("other", 1)]
    late = fact.Completed(of, 1, {}, 1.0)
    assert types(job.decide(late).decided)[:2] == ["LateOutcome", "PhaseStarted"]
    assert types(job.decide(late).decided) == ["LateOutcome"]
    assert job.of(KEY)["items"]["in_progress"] == {"other": True}


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_person_does_without_an_item_or_takes_it_for_done(sqlite_store: SQLiteStore) -> None:
    wf, calls = importing({"dish 2", "dish 3"})
    job_id = wf.run(store=sqlite_store).job_id
    operators.skip(sqlite_store, job_id, "import_dish[dish 2]", by="anna")
    resume_blocking(wf, job_id, sqlite_store, by="anna")
    operators.complete(sqlite_store, job_id, "main/import_dish[dish 3]", 100, by="anna", definition=wf)

    job = resume_blocking(wf, job_id, sqlite_store, by="anna")

    assert job.result(wf.sub_steps["main/total"]) == 0 + 1 + 100 + 4 + 5 + 6
    assert calls["dish 2"] == 2
    assert statuses(load(sqlite_store, job_id).state)["dish 2"] == "skipped"


def test_what_is_not_allowed_on_an_item_is_refused_with_what_is(sqlite_store: SQLiteStore) -> None:
    wf, _ = importing({"dish 2"})
    job_id = wf.run(store=sqlite_store).job_id
    with pytest.raises(ActionRefused, match="it has settled") as refused:
        operators.skip(sqlite_store, job_id, "import_dish[dish 0]", by="anna")
    assert (refused.value.sub_step, refused.value.allowed) == ("main/import_dish[dish 0]", [])
    with pytest.raises(SubStepNotFound, match="dish 2"):
        operators.skip(sqlite_store, job_id, "import_dish[dish2]", by="anna")
    with pytest.raises(
        ActionRefused, match="which are listed anew: reset main/import_dish; allowed now: skip, complete"
    ):
        operators.reset(sqlite_store, job_id, "import_dish[dish 2]", by="anna")
    with pytest.raises(ActionRefused, match="all its failed items run again"):
        operators.retry(sqlite_store, job_id, "import_dish[dish 2]", by="anna")


def test_after_an_edit_only_what_runs_again_gets_a_new_idempotency_key(sqlite_store: SQLiteStore) -> None:
    broken = {"dish 2"}
    wf, _ = importing(broken)
    job_id = wf.run(store=sqlite_store).job_id
    operators.set_context(sqlite_store, job_id, {"first": "edited"}, by="anna")
    broken.clear()

    operators.resume(sqlite_store, job_id, by="anna")
    resume_blocking(wf, job_id, sqlite_store, by="anna")

    (reset,) = events_of(sqlite_store, job_id, "SubStepReset")
    assert reset.data["items"] == ["dish 2"]
    started = {
        (event.data["item"], event.data["idempotency_key"])
        for event in events_of(sqlite_store, job_id, "SubStepStarted")
        if event.data.get("item")
    }
    assert {key for item, key in started if item == "dish 2"} == {
        idempotency_key(job_id, KEY, generation, "dish 2") for generation in (1, 2)
    }
    assert len(started) == 7 + 1


def test_a_reset_lists_the_items_anew_in_a_new_generation(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("anew")
    listed = ["a"]

    @wf.map(items=lambda job: listed)
    def work(letter: str) -> str:
        return letter

    job_id = wf.run(store=sqlite_store).job_id
    listed += ["b"]
    operators.reset(sqlite_store, job_id, "work", by="anna")

    assert resume_blocking(wf, job_id, sqlite_store, by="anna").result(work) == ["a", "b"]
    assert [event.data["generation"] for event in events_of(sqlite_store, job_id, "SubStepStarted")] == [1, 2, 2]


def test_items_that_had_a_life_of_their_own_get_a_key_that_none_of_them_had(sqlite_store: SQLiteStore) -> None:
    broken = {"dish 2"}
    wf, _ = importing(broken)
    job_id = wf.run(store=sqlite_store).job_id
    operators.set_context(sqlite_store, job_id, {"first": "edited"}, by="anna")
    broken.clear()
    resume_blocking(wf, job_id, sqlite_store, by="anna")

    operators.reset(sqlite_store, job_id, "import_dish", by="anna")
    resume_blocking(wf, job_id, sqlite_store, by="anna")

    started = events_of(sqlite_store, job_id, "SubStepStarted")
    keys = [event.data["idempotency_key"] for event in started if event.data.get("item") == "dish 2"]
    assert len(keys) == 4, "two attempts, one after the edit, one after the reset"
    assert len(set(keys)) == 3
    assert [event.data["generation"] for event in started if event.data.get("item") == "dish 0"] == [1, 3]


def test_a_fork_inherits_what_the_items_have_done_and_runs_the_rest(sqlite_store: SQLiteStore) -> None:
    broken = {"dish 2"}
    wf, calls = importing(broken)
    job_id = wf.run(store=sqlite_store).job_id
    done = calls.total() - 2
    broken.clear()

    forked = fork(sqlite_store, job_id, by="anna").state["job_id"]
    job = resume_blocking(wf, forked, sqlite_store, by="anna")

    assert job.result(wf.sub_steps["main/total"]) == sum(range(7))
    assert calls.total() == 2 + 7, "each item succeeded once, in one of the two jobs"
    assert len(of_items(sqlite_store, forked, "SubStepStarted")) == 7 - done


def test_a_fork_from_the_middle_of_a_fan_out_says_what_it_would_run_and_counts_its_time_from_then_on(
    sqlite_store: SQLiteStore,
) -> None:
    wf: Workflow[Any, Any] = Workflow("forked early")
    listing, working = wf.phase("listing"), wf.phase("working", parallel=1)

    @listing.sub_step
    def numbers() -> list[int]:
        return [0, 1, 2]

    @working.map(items=result(numbers))
    def work(number: int) -> int:
        return number

    job_id = wf.run(store=sqlite_store).job_id
    first = next(event for event in events_of(sqlite_store, job_id, "SubStepCompleted") if "item" in event.data)

    forked = fork(sqlite_store, job_id, at=first.version, by="anna").state
    point = resume_point(load(sqlite_store, forked["job_id"]).state)

    (entry,) = point["run"]
    assert (point["phase"], entry["sub_step"], point["done"]) == ("working", "working/work", ["listing/numbers"])
    assert "2 of 3 items are left" in entry["because"]
    group = load(sqlite_store, forked["job_id"]).state["phases"]["working"]["sub_steps"]["work"]
    assert group["started_at"] == forked["created_at"]


def test_a_fork_of_a_completed_fan_out_runs_none_of_it_again(sqlite_store: SQLiteStore) -> None:
    wf, calls = importing(set())
    job_id = wf.run(store=sqlite_store).job_id
    forked = fork(sqlite_store, job_id, by="anna").state["job_id"]
    job = resume_blocking(wf, forked, sqlite_store, by="anna")
    assert job.result(wf.sub_steps[KEY]) == list(range(7))
    assert calls.total() == 7


def test_a_pause_lets_what_runs_settle_and_begins_no_other_item(sqlite_store: SQLiteStore) -> None:
    wf = Workflow("paused")
    paused: list[str] = []

    @wf.map(items=range(50), parallel=2)
    async def work(number: int, step: Step) -> int:
        if number == 4 and not paused:
            paused.append(step.job_id)
            await asyncio.to_thread(operators.pause, sqlite_store, step.job_id, by="anna")
        return number

    settings = Settings(heartbeat_s=0.01)
    job = run_blocking(wf, store=sqlite_store, settings=settings)
    state = load(sqlite_store, job.job_id).state
    if job.status == "paused":  # the pause may be heard of when everything is done
        left = Counter(statuses(state, "main/work").values())
        assert left["in_progress"] == 0
        assert resume_blocking(wf, job.job_id, sqlite_store, by="anna").result(work) == list(range(50))


# --- what is seen ----------------------------------------------------------------------------------------------------


def test_a_snapshot_and_the_resume_point_show_a_group_in_numbers(sqlite_store: SQLiteStore) -> None:
    wf, _ = importing({"dish 2"})
    job = wf.run(store=sqlite_store)
    state = load(sqlite_store, job.job_id).state
    counts = snapshot(state)["phases"]["main"]["sub_steps"]["import_dish"]["items"]
    assert counts["total"] == 7
    assert counts["failed"] == 1
    assert sum(counts.values()) - 7 == 7
    assert "dish 4" not in str(snapshot(state))

    last_start = events_of(sqlite_store, job.job_id, "SubStepStarted")[-1].version
    (entry,) = resume_point(load(sqlite_store, job.job_id, last_start).state)["run"]
    assert entry["sub_step"] == KEY
    assert "of 7 items are left" in entry["because"]
    assert entry["items"]["total"] == 7


def test_a_plan_that_fans_out_is_not_one_that_does_not(sqlite_store: SQLiteStore) -> None:
    wf, _ = importing({"dish 2"})
    job_id = wf.run(store=sqlite_store).job_id
    other: Workflow[Any, Kitchen] = Workflow("importing", context=Kitchen)

    @other.sub_step
    def import_dish() -> None: ...

    @other.sub_step
    def total(prices: Any = result(import_dish, default=None)) -> None: ...

    with pytest.raises(PlanMismatch, match="sub-step main/import_dish was a fan-out"):
        resume_blocking(other, job_id, sqlite_store, by="anna")


# --- declarations ----------------------------------------------------------------------------------------------------


def test_declarations_that_cannot_mean_anything_are_refused() -> None:
    wf = Workflow("refused")

    @wf.sub_step
    def source() -> list[int]:
        return []

    with pytest.raises(DefinitionError, match=r"items=result\(source\)"):
        wf.map(items=source)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as people write it
    with pytest.raises(DefinitionError, match="never run"):
        wf.map(items=[1], parallel=0)
    with pytest.raises(DefinitionError, match="the first parameter of a fan-out's handler is the item"):

        @wf.map(items=[1])  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]  # ditto
        def nothing() -> None: ...

    async def listing(job: Any) -> list[int]:
        return [1]

    with pytest.raises(DefinitionError, match="cannot be async"):
        wf.map(items=listing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # ditto


def test_a_handler_of_items_can_be_called_in_a_unit_test() -> None:
    wf = Workflow("callable")

    @wf.map(items=[1, 2])
    def double(number: int) -> int:
        return number * 2

    assert double(4) == 8


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_an_event_of_an_item_shares_everything_with_the_state_before_it_but_a_page() -> None:
    job = Job({"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 4})]}]})
    job.items[KEY] = [Listed(f"k{number}", number) for number in range(2000)]
    job.claim()
    for _ in range(200):
        job.item_completes(*job.of(KEY)["items"]["in_progress"])
    before = job.of(KEY)["items"]
    after = job.item_completes(*before["in_progress"]).of(KEY)["items"]

    assert after["completed"] == before["completed"] + 4
    assert after["keys"] is before["keys"]
    assert after["inputs"] is before["inputs"]
    assert len(after["active"]) == len(after["places"]) == 4
    changed = [one is not other for one, other in zip(before["settled"], after["settled"], strict=False)]
    assert changed.count(True) == 1
    assert len(changed) == 4


def test_while_a_thousand_items_wait_to_run_again_no_other_begins() -> None:
    retry = {"attempts": 2, "wait_s": 3600.0, "factor": 1.0, "wait_s_max": 3600.0, "jitter": 0.0}
    job = Job(
        {"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 50}, retry=retry)]}]}
    )
    job.items[KEY] = [Listed(f"k{number}", number) for number in range(3000)]
    job.claim()
    while running := [*job.of(KEY)["items"]["in_progress"]]:
        job.item_fails(*running, error={"type": "E", "message": "m", "traceback": "", "retryable": True})
    counts = counts_of(job.of(KEY)["items"])
    assert 1000 <= counts.waiting < 1050
    assert counts.pending == 3000 - counts.waiting
    assert next_due(job.state, job.state["recorded_at"]) is not None


def test_a_settled_item_keeps_fields_that_a_state_has() -> None:
    assert set(SettledItem.__annotations__) < set(SubStepState.__annotations__)


def test_signals_and_resumes_of_a_large_job_copy_no_item() -> None:
    job = Job({"phases": [{"name": "main", "sub_steps": [step_plan("import_dish", map={"parallel": 4})]}]}).claim()
    before = job.of(KEY)["items"]
    job.append(ev.SignalReceived(name="go", signal_id="s"))
    assert job.of(KEY)["items"] is before
