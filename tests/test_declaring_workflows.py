"""What a declaration cannot mean is refused where it stands, with what to write instead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from steplog import Context, DefinitionError, Retry, Step, Transaction, Workflow, result, use
from steplog.eventstore.store import Store
from steplog.testing.memory import MemoryStore


class Needy(Context):
    cook: str


async def asynchronous() -> AsyncIterator[int]:
    yield 1


def needs_something(missing: int) -> int:
    return missing


def nameless(wf: Workflow[Any, Any]) -> None:
    wf.sub_step(name="line\nbreak")(lambda: None)


def twice(wf: Workflow[Any, Any]) -> None:
    wf.sub_step(name="same")(lambda: None)
    wf.sub_step(name="same")(lambda: None)


def unfillable(wf: Workflow[Any, Any]) -> None:
    untyped: Any = needs_something
    wf.sub_step(untyped)


def edge_from_elsewhere(wf: Workflow[Any, Any]) -> None:
    other = Workflow("other").sub_step(lambda: None)
    wf.sub_step(after=[other])(lambda: None)


def edge_from_a_later_phase(wf: Workflow[Any, Any]) -> None:
    first, second = wf.phase("first"), wf.phase("second")
    later = second.sub_step(name="later")(lambda: 1)
    first.sub_step(name="early", after=[later])(lambda: None)


def edge_from_a_string(wf: Workflow[Any, Any]) -> None:
    edges: Any = ["fetch"]
    wf.sub_step(after=edges)(lambda: None)


def edge_without_a_list(wf: Workflow[Any, Any]) -> None:
    first: Any = wf.sub_step(name="first")(lambda: 1)
    wf.sub_step(name="second", after=first)(lambda: None)


def phase_without_sub_steps(wf: Workflow[Any, Any]) -> None:
    wf.phase("empty")
    wf.run(store=MemoryStore())


def async_resource_for_a_plain_handler(wf: Workflow[Any, Any]) -> None:
    def handler(number: int = use(asynchronous)) -> int:
        return number

    wf.sub_step(handler)


def local_model(wf: Workflow[Any, Any]) -> None:
    class Local: ...

    def handler(step: Step) -> Local:
        return Local()

    wf.sub_step(handler)


def errors_in_a_list(wf: Workflow[Any, Any]) -> None:
    errors: Any = [ValueError]
    Retry(on=errors)


def transaction_for_an_async_handler(wf: Workflow[Any, Any]) -> None:
    async def handler(tx: Transaction) -> None: ...

    wf.sub_step(handler)


def two_transactions(wf: Workflow[Any, Any]) -> None:
    def handler(one: Transaction, other: Transaction) -> None: ...

    handlers: Any = handler
    wf.sub_step(handlers)


def async_condition(wf: Workflow[Any, Any]) -> None:
    async def never(job: Any) -> bool:
        return False

    condition: Any = never
    wf.sub_step(when=condition)(lambda: None)


REFUSED: dict[str, tuple[Callable[[Workflow[Any, Any]], Any], str]] = {
    "a name with a line break": (nameless, "control characters"),
    "a name twice": (twice, "main/same is declared twice"),
    "a parameter that nothing fills": (unfillable, "nothing can fill the parameter 'missing'"),
    "an edge from another workflow": (edge_from_elsewhere, "of another workflow"),
    "an edge from a later phase": (edge_from_a_later_phase, "of a later phase"),
    "an edge that is no sub-step": (edge_from_a_string, "after= takes sub-steps"),
    "an edge that is no list": (edge_without_a_list, r"after=\[first\]"),
    "a phase without sub-steps": (phase_without_sub_steps, "phase empty of refused declares no sub-step"),
    "a workflow without sub-steps": (lambda wf: wf.run(store=MemoryStore()), "workflow refused declares no sub-step"),
    "an async resource for a plain handler": (async_resource_for_a_plain_handler, "only an async handler"),
    "a type that is local to a function": (local_model, "at module level"),
    "a slash in a phase's name": (lambda wf: wf.phase("a/b"), "no slash"),
    "a phase twice": (lambda wf: (wf.phase("a"), wf.phase("a")), "declared twice"),
    "a limit of none": (lambda wf: wf.phase("a", parallel=0), "never run anything"),
    "no attempts": (lambda wf: Retry(attempts=0), "at least once"),
    "errors to retry in a list": (errors_in_a_list, "tuples of exception types"),
    "a context that needs a value": (lambda wf: Workflow("needy", context=Needy), "needs a default: cook"),
    "a transaction for an async handler": (transaction_for_an_async_handler, "only a plain `def` handler"),
    "two transactions": (two_transactions, "one and other ask for a transaction"),
    "a condition that is async": (async_condition, "cannot be async"),
    "waits that shrink": (lambda wf: Retry(factor=0.5), "cannot shrink"),
    "an endless duration": (lambda wf: wf.sub_step(timeout=float("inf")), "number of seconds"),
    "a duration that is no number": (lambda wf: wf.sub_step(timeout=float("nan")), "number of seconds"),
    "an endless factor": (lambda wf: wf.sub_step(retry=Retry(factor=float("inf"))), "or be endless"),
    "a duration without a unit": (lambda wf: wf.sub_step(timeout="5 minutes"), "is no duration"),
    "a negative duration": (lambda wf: wf.sub_step(timeout=-1), "not negative"),
    "a workflow without a name": (lambda wf: Workflow(""), "not empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_declaration_without_a_meaning_is_refused(name: str) -> None:
    declare, message = REFUSED[name]

    with pytest.raises(DefinitionError, match=message):
        declare(Workflow("refused"))


def test_a_handler_stays_callable_in_a_unit_test() -> None:
    wf = Workflow("unit")

    @wf.sub_step
    def fetch() -> str:
        return "world"

    @wf.sub_step
    def greet(name: str = result(fetch)) -> str:
        return f"hello {name}"

    assert fetch() == "world"
    assert greet("you") == "hello you"
    with pytest.raises(TypeError, match="without an engine, so result\\(\\) does not fill 'name'"):
        greet()


def test_a_transactional_handler_is_tested_with_a_transaction_of_the_store_in_memory() -> None:
    store = MemoryStore()

    @Workflow("unit").sub_step
    def book(tx: Transaction, dish: str = "soup") -> int:
        return tx.execute("update stock set left_over = left_over - 1 where dish = %s", [dish]).rowcount

    with store.transaction() as tx:
        tx.execute("create table stock (dish text, left_over integer)")
        tx.executemany("insert into stock values (%s, %s)", [["soup", 7], ["cake", 1]])
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        assert 1 / (book(tx, dish="cake") - 1)
    with store.transaction() as tx:
        assert book(tx) == 1

    with store.transaction() as tx:
        assert tx.execute("select dish, left_over from stock").fetchall() == [("soup", 6), ("cake", 1)]


@pytest.mark.parametrize(
    ("given", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), (1.5, 1.5), (0, 0)]
)
def test_durations_are_seconds_or_a_number_with_its_unit(given: str | float, seconds: float) -> None:
    assert Retry(wait=given).plan()["wait_s"] == seconds


def test_a_sub_step_declared_after_a_run_is_in_the_next_jobs_plan(store: Store) -> None:
    wf = Workflow("grows")
    wf.sub_step(name="first")(lambda: 1)
    before = wf.run(store=store)
    wf.sub_step(name="second")(lambda: 2)
    after = wf.run(store=store)

    assert (before.snapshot["progress"]["total"], after.snapshot["progress"]["total"]) == (1, 2)
