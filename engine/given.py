"""What a person gives by hand, as the log keeps it: checked by the code's types where the code is at hand."""

from __future__ import annotations

import sys
from collections.abc import Collection
from itertools import zip_longest
from typing import Any

from pydantic import BaseModel, ValidationError

from steplog.engine.context import fields_of, open_draft
from steplog.engine.definition import AnyDefinition
from steplog.engine.errors import InputRefused, ValueRefused
from steplog.engine.jobs import recorded_input
from steplog.engine.scrubbing import scrubbed
from steplog.engine.secret_values import given_texts
from steplog.engine.values import dump, load, plain, problems_of
from steplog.engine.vault import Vault
from steplog.eventstore.codec import check_name, encode
from steplog.eventstore.sealed import is_sealed, may_hold_sealed, with_sealed
from steplog.projections.plan import Key
from steplog.projections.state import State
from steplog.projections.sub_step_rules import ENGINE


def given_result(
    definition: AnyDefinition | None,
    key: Key,
    value: Any,
    vault: Vault,
    state: State | None = None,
    *,
    of_item: bool = False,
) -> Any:
    """A sub-step's result, or that of one item of a fan-out. Raises ValueRefused, PayloadRefused with the path."""
    sub_step = definition.sub_steps.get(key) if definition else None
    if sub_step is None:
        return _without_code(value, "result", vault, state)
    returns = sub_step.bindings.returns if of_item else sub_step.returns
    try:
        return dump(load(plain(value, "result"), returns), returns, "result", vault)
    except ValidationError as error:
        raise _refused(f"result of {key}", error, value, returns) from None


def given_input(definition: AnyDefinition | None, value: Any, vault: Vault, state: State | None = None) -> Any:
    """A job's input. Raises InputRefused, PayloadRefused with the path."""
    if definition is None:
        return _without_code(value, "input", vault, state)
    return recorded_input(definition, value if state is None else _as_given(value, state["input"], vault), vault)


def _as_given(value: Any, recorded: Any, vault: Vault) -> Any:
    """The input with those secrets opened that stand where they stood: whoever edits it gives back what he leaves."""
    if is_sealed(value) and value == recorded:
        return with_sealed(value, vault.open)
    if isinstance(value, dict) and isinstance(recorded, dict):
        return {name: _as_given(part, recorded.get(name), vault) for name, part in value.items()}
    if isinstance(value, list) and isinstance(recorded, list):
        return [_as_given(part, old, vault) for part, old in zip_longest(value, recorded[: len(value)])]
    return value


def _without_code(value: Any, path: str, vault: Vault, state: State | None) -> Any:
    """A value that no type tells about. Raises ValueRefused for a job with secrets: it may be one."""
    if vault.has_key or may_hold_sealed(encode(state, bytes_max=sys.maxsize)):
        raise ValueRefused(path, ["the job has secrets, and only its code says where: name the module with --module"])
    return plain(value, path)


def _refused(what: str, error: ValidationError, given: Any, kind: Any) -> ValueRefused:
    texts = given_texts(given, kind)
    return ValueRefused(what, [scrubbed(problem, texts) for problem in problems_of(error)])


def refuse_unknown_fields(definition: AnyDefinition, names: Collection[str]) -> None:
    """Raise InputRefused for a field that the input's model would ignore: who types a name means it."""
    model = definition.input_type
    if not (isinstance(model, type) and issubclass(model, BaseModel)) or model.model_config.get("extra") == "allow":
        return
    aliases = [field.validation_alias for field in model.model_fields.values() if field.validation_alias is not None]
    known = {*model.model_fields, *(alias for alias in aliases if isinstance(alias, str))}
    if not all(isinstance(alias, str) for alias in aliases):  # a path, or a choice of names: any may be meant
        return
    if unknown := sorted(set(names) - known):
        raise InputRefused(definition.name, [f"no field {name!r}: {_fields_it_has(known)}" for name in unknown])


def _fields_it_has(known: Collection[str]) -> str:
    return f"it has {', '.join(sorted(known))}" if known else "it has none"


def given_context(
    definition: AnyDefinition | None, state: State, values: dict[str, Any], unset: Collection[str], vault: Vault
) -> dict[str, Any]:
    """New values of fields of the job's context. Raises ValueRefused, PayloadRefused with the path.

    Without the code, only fields that the context has had are taken.
    """
    kind = definition.context_type if definition else None
    known = kind.model_fields.keys() if kind else state["context"].keys() | state["writers"].keys()
    if unknown := sorted({*values, *unset} - known):
        raise ValueRefused("context", [f"no field {name!r}: {_fields_it_has(known)}" for name in unknown])
    if kind is None:
        return {name: _without_code(value, f"context.{name}", vault, state) for name, value in values.items()}
    kept = {name: value for name, value in state["context"].items() if name not in unset}
    given = {name: plain(value, f"context.{name}") for name, value in values.items()}
    try:
        typed = fields_of(open_draft(kind, kept | given, vault=vault), vault)
    except ValidationError as error:
        raise _refused("context", error, values, kind) from None
    return {name: typed[name] for name in values}


def given_name(by: str) -> str:
    """A person's name. Raises PayloadRefused, ValueRefused for the engine's own."""
    if check_name(by, "by") == ENGINE:
        raise ValueRefused("by", [f"{ENGINE!r} is what nobody did by hand"])
    return by
