"""Secrets: what types declare secret stays in the store, and its text is masked wherever else it turns up."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import SECRETS, TOKENS, Basket, Order, Vault, World, orders
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from steplog import Workflow
from steplog.api.schemas import input_schema
from steplog.engine.masking import MASK, Masks, mask_of, masked, without

CANARIES = ("4111-canary-1111", "canary-voucher")


class Tree(BaseModel):
    name: str
    secret: SecretStr
    children: list[Tree] = []


@pytest.mark.parametrize(
    ("annotation", "value", "shown"),
    [
        (SecretStr, "s", MASK),
        (SecretBytes, "s", MASK),
        (SecretStr | None, "s", MASK),
        (SecretStr | None, None, None),
        (list[SecretStr], ["a", "b"], [MASK, MASK]),
        (dict[str, SecretStr], {"a": "b"}, {"a": MASK}),
        (Order, {"shop": "x", "card": "y"}, {"shop": "x", "card": MASK}),
        (list[Order], [{"card": "y"}], [{"card": MASK}]),
        (dict[str, list[Order]], {"a": [{"card": "y"}]}, {"a": [{"card": MASK}]}),
        (Order | int, {"card": "y"}, {"card": MASK}),
        (Vault, {"plain": "p", "keys": ["k"], "inner": {"card": "c"}}, {
            "plain": "p", "keys": MASK, "inner": {"card": MASK},
        }),
        (Tree, {"name": "n", "secret": "s", "children": [{"secret": "t"}]}, {
            "name": "n", "secret": MASK, "children": [{"secret": MASK}],
        }),
        (str, "s", "s"),
        (Any, {"secret": "s"}, {"secret": "s"}),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_type_declares_secret_is_masked_and_nothing_else(annotation: Any, value: Any, shown: Any) -> None:
    assert masked(value, mask_of(annotation)) == shown


def test_a_secrets_text_is_masked_wherever_it_stands() -> None:
    document = {"error": "no letter to hunter2!", "list": [{"hunter2": 1}], "number": 7}
    assert without(document, ("hunter2",)) == {"error": f"no letter to {MASK}!", "list": [{MASK: 1}], "number": 7}


def test_what_items_are_given_is_masked_in_the_event_that_lists_them() -> None:
    wf = Workflow("vaults")
    phase = wf.phase("p")

    @phase.map(items=[Order(shop="x", card="4111-canary-1111")], key=lambda order: order.shop)
    def charge(order: Order) -> None:
        pass

    listed = {"phase": "p", "sub_step": "charge", "items": [{"key": "x", "input": {"shop": "x", "card": "4111"}}]}
    assert Masks.of(wf).data("SubStepExpanded", listed)["items"] == [{"key": "x", "input": {"shop": "x", "card": MASK}}]


def test_nothing_secret_costs_nothing() -> None:
    document = {"input": {"a": 1}, "context": {}}
    assert Masks().snapshot(document) is document


def every_answer(world: World, job_id: str) -> dict[str, str]:
    """What a reader and an operator can get to see of the job, by path."""
    gets = (
        "", "?at=3", "/resume-point", "/timeline", "/timeline.svg", "/diff?from=1", "/events?limit=1000",
    )  # fmt: skip
    found = {path: world.client.get(f"/api/v1/jobs/{job_id}{path}").text for path in gets}
    pages = (
        "/jobs", f"/jobs/{job_id}", f"/jobs/{job_id}?at=4&since=1&step=prepare/greet", f"/jobs/{job_id}/events",
        f"/jobs/{job_id}/events.jsonl", f"/jobs/{job_id}/do/resume", f"/jobs/{job_id}/do/set", "/workflows/orders",
        f"/jobs/{job_id}/do/reset?sub_step=prepare/price", "/system",
    )  # fmt: skip
    found |= {path: world.client.get(path, headers={"Accept": "text/html"}).text for path in pages}
    dry = world.client.post(f"/api/v1/jobs/{job_id}/sub-steps/prepare/price/reset?dry_run=1")
    found["dry run"] = dry.text
    found["list"] = world.client.get("/api/v1/jobs").text
    found["refused input"] = world.client.post(
        "/api/v1/workflows/orders/jobs", json={"input": {"shop": 1, "card": CANARIES[0]}}
    ).text
    found["refused body"] = world.client.post(
        f"/api/v1/jobs/{job_id}/input", json={"input": 1, "nonsense": CANARIES[0]}
    ).text
    found["metrics"] = world.client.get("/metrics").text
    found["openapi"] = world.client.get("/openapi.json").text
    return found


def test_planted_secrets_are_found_nowhere_but_in_the_store() -> None:
    world = World()
    job_id = world.job()
    stored = str(list(world.store.read(job_id)))
    assert all(canary in stored for canary in CANARIES)
    shown = every_answer(world, job_id)
    assert all(text for text in shown.values())
    leaks = [(where, canary) for where, text in shown.items() for canary in CANARIES if canary in text]
    assert leaks == []
    assert MASK in shown[""]


def test_a_list_of_jobs_tells_no_secret_of_an_error() -> None:
    world = World()
    job_id = world.job(shop="leaky")
    assert "canary" in (world.store.head(job_id).columns.last_error or "")
    for path in ("/api/v1/jobs", "/jobs", "/system"):
        assert "the van is broken by" in (text := world.client.get(path).text)
        assert "canary" not in text


def test_tokens_are_in_no_answer() -> None:
    world = World(tokens=TOKENS, name="anna")
    shown = every_answer(world, world.job())
    assert not [where for where, text in shown.items() for secret in SECRETS.values() if secret in text]


def test_the_schema_says_what_is_secret_and_not_its_default() -> None:
    card = input_schema(orders)["properties"]["card"]
    assert card["writeOnly"] is True
    assert "default" not in card


def test_a_secret_set_by_hand_is_masked() -> None:
    world = World()
    job_id = world.job()
    world.client.post(f"/api/v1/jobs/{job_id}/context", json={"set": {"voucher": "second-secret"}})
    world.client.post(f"/api/v1/jobs/{job_id}/input", json={"input": {"card": "third-secret"}})
    events = world.client.get(f"/api/v1/jobs/{job_id}/events?limit=1000").text
    assert "second-secret" not in events
    assert "third-secret" not in events
    assert Basket.model_fields["voucher"].repr is False
    assert Field(repr=False).repr is False
