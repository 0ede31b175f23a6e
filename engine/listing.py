"""The items of a fan-out as the log keeps them: listed once by the code, or why they cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from steplog.engine.calling import error_data
from steplog.engine.definition import AnyDefinition, AnySubStep
from steplog.engine.errors import ItemsRefused
from steplog.engine.facts import ErrorData, Listed
from steplog.engine.injection import MISSING, ResultOf
from steplog.engine.step import Job
from steplog.engine.values import Seals, dump, load
from steplog.engine.vault import Vault
from steplog.eventstore.codec import check_name
from steplog.projections.fan_out import results_of
from steplog.projections.plan import Key
from steplog.projections.readiness import sub_step_of
from steplog.projections.state import State


def list_items(
    definition: AnyDefinition, key: Key, state: State, job: Callable[[], Job[Any, Any]], vault: Vault
) -> Sequence[Listed] | ErrorData:
    """The items of that fan-out, in their order; where there is no such list, the error that fails the sub-step."""
    sub_step = definition.sub_steps[key]
    try:
        assert sub_step.fan_out is not None, key
        items = _items(definition, sub_step, state, job, vault)
        return list_of_items(items, sub_step.bindings.item, sub_step.fan_out.key, vault)
    except BaseException as error:  # user code: whatever it raises fails the sub-step, not the runner
        return error_data(error, False, vault.scrub)


def _items(
    definition: AnyDefinition, sub_step: AnySubStep, state: State, job: Callable[[], Job[Any, Any]], vault: Vault
) -> Iterable[Any]:
    fan_out = sub_step.fan_out
    assert fan_out is not None, sub_step.key
    items: Any = fan_out.items
    if isinstance(items, ResultOf):
        source = sub_step_of(state, items.sub_step.key)
        if source["status"] != "completed" and items.default is not MISSING:
            return cast("Iterable[Any]", items.default)
        returned: Iterable[Any] = load(results_of(source), definition.sub_steps[items.sub_step.key].returns, vault)
        return returned
    return cast("Iterable[Any]", items(job()) if callable(items) else items)


def list_of_items(
    items: Iterable[Any], kind: Any, key_of: Callable[[Any], str | int] | None, vault: Seals | None = None
) -> list[Listed]:
    """Each with its key. Raises ItemsRefused, and PayloadRefused with the path of what is not of that kind."""
    seen: set[str] = set()
    listed: list[Listed] = []
    for place, item in enumerate(items):
        key = check_name(key_of_item(item, key_of), f"key of item {place}")
        if key in seen:
            raise ItemsRefused(f"two items have the key {key!r}: each needs one of its own")
        seen.add(key)
        listed.append(Listed(key, dump(item, kind, f"items[{place}]", vault)))
    return listed


def key_of_item(item: Any, key_of: Callable[[Any], str | int] | None) -> str:
    """What tells an item from the others. Raises ItemsRefused where nothing says what that is."""
    named = item if key_of is None else key_of(item)
    if type(named) in (str, int):
        return str(named)
    kind = type(named).__qualname__
    if key_of is None:
        raise ItemsRefused(f"an item is {kind}, and nothing says what its key is: give key=")
    raise ItemsRefused(f"key= made {kind} of an item: a key is text or a whole number")
