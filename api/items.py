"""A page of a fan-out's items, for others' eyes: never all of them, and without what is secret."""

from __future__ import annotations

from typing import Any, NamedTuple

from steplog.api.service import Service
from steplog.engine.lookup import find_items
from steplog.engine.masking import mask_of, masked, secret_texts, without
from steplog.projections.documents import item_document
from steplog.projections.fan_out import Counts, counts_of, page_of
from steplog.projections.plan import Key
from steplog.projections.state import State


class Page(NamedTuple):
    """Some items in their order, and how to go on."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    """The last one's key, where there are more."""
    counts: Counts


def page_of_items(
    service: Service, state: State, key: Key, *, status: str | None, after: str | None, limit: int
) -> Page:
    """The items behind the one named, of one status if one is given. Raises SubStepNotFound, NoFanOut."""
    group, place = find_items(state, key, after)
    found, more = page_of(group, status, place, limit)
    assert group["items"] is not None, key
    shown = [_shown(service, state, key, item_document(item)) for item in found]
    return Page(shown, found[-1].key if more else None, counts_of(group["items"]))


def _shown(service: Service, state: State, key: Key, document: dict[str, Any]) -> dict[str, Any]:
    """An item without what its workflow's types declare secret."""
    definition = service.jobs.definitions.get(state["workflow"])
    sub_step = definition.sub_steps.get(key) if definition else None
    if sub_step is None:
        return document
    masks = {"input": mask_of(sub_step.bindings.item), "result": mask_of(sub_step.bindings.returns)}
    hidden = {name: masked(document[name], mask) for name, mask in masks.items()}
    texts = (*service.jobs.secrets(state), *secret_texts(document["input"], masks["input"]))
    shown: dict[str, Any] = without({**document, **hidden}, texts)
    return shown
