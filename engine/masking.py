"""What nobody is shown: fields that a workflow's types declare secret, and their text wherever else it turns up.

Secret is a `SecretStr`, a `SecretBytes`, which the log holds sealed, and a field with `repr=False`, which it keeps as
it was given. What leaves it by the API or the pages goes through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr

from steplog.engine.definition import AnyDefinition
from steplog.eventstore.sealed import ERASED, HIDDEN, hidden, is_sealed
from steplog.projections.plan import key_of

MASK: Final = HIDDEN
TEXT_CHARS_MIN = 4
"""How long a secret is at least for its text to be looked for elsewhere."""
_DEPTH_MAX = 8

Mask = Mapping[str, Any] | bool
"""True for a value that is secret; by field, `*` for any, the mask of what is inside; False for nothing."""

_INPUT_OF = {"JobCreated": "input", "JobForked": "input", "InputChanged": "input"}
_CONTEXT_OF = {
    "JobCreated": ("context",), "JobForked": ("context",), "ContextChanged": ("set",), "SubStepReset": ("set",),
    "SubStepInherited": ("context_written",), "SubStepCompleted": ("context_refused",),
}  # fmt: skip


def mask_of(annotation: Any, depth: int = 0) -> Mask:
    """Which parts of a value of that type are secret."""
    if depth > _DEPTH_MAX:
        return False
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, (SecretStr, SecretBytes)):
            return True
        if issubclass(annotation, BaseModel):
            fields = {
                name: mask_of(field.annotation, depth + 1) if field.repr else True
                for name, field in annotation.model_fields.items()
            }
            return {name: mask for name, mask in fields.items() if mask} or False
        return False
    inner = [mask_of(each, depth + 1) for each in get_args(annotation) if isinstance(each, type) or get_args(each)]
    if any(mask is True for mask in inner) and get_origin(annotation) not in (list, dict, tuple, set, frozenset):
        return True
    if get_origin(annotation) in (list, dict, tuple, set, frozenset):
        found = [mask for mask in inner if mask]
        return {"*": found[0]} if found else False
    merged: dict[str, Any] = {}
    for mask in inner:
        merged |= mask if isinstance(mask, Mapping) else {}
    return merged or False


def masked(value: Any, mask: Mask) -> Any:
    """The value without what is secret."""
    if not mask or value is None:
        return value
    if mask is True:
        return value if value == ERASED else MASK
    if isinstance(value, dict):
        return {name: masked(part, mask.get(name, mask.get("*", False))) for name, part in value.items()}
    if isinstance(value, list):
        return [masked(part, mask.get("*", False)) for part in value]
    return value


def secret_texts(value: Any, mask: Mask) -> Iterator[str]:
    """The texts that are masked."""
    if not mask or value is None or value == ERASED or is_sealed(value):
        return
    if isinstance(value, dict):
        for name, part in value.items():
            yield from secret_texts(part, True if mask is True else mask.get(name, mask.get("*", False)))
    elif isinstance(value, list):
        for part in value:
            yield from secret_texts(part, True if mask is True else mask.get("*", False))
    elif mask is True and isinstance(value, str) and len(value) >= TEXT_CHARS_MIN:
        yield value


@dataclass(frozen=True, slots=True)
class Masks:
    """What is secret in a workflow's jobs."""

    input: Mask = False
    context: Mask = False
    results: Mapping[str, Mask] | None = None
    """By sub-step's key."""
    items: Mapping[str, Mask] | None = None
    """Of what each item of a fan-out is given, by its sub-step's key."""

    @staticmethod
    def of(definition: AnyDefinition | None) -> Masks:
        """Where the code is not at hand, nothing is known to be secret."""
        if definition is None:
            return Masks()
        results = {key: mask_of(step.bindings.returns) for key, step in definition.sub_steps.items()}
        items = {key: mask_of(step.bindings.item) for key, step in definition.sub_steps.items()}
        return Masks(
            mask_of(definition.input_type),
            mask_of(definition.context_type),
            {key: mask for key, mask in results.items() if mask},
            {key: mask for key, mask in items.items() if mask},
        )

    @property
    def is_empty(self) -> bool:
        return not (self.input or self.context or self.results or self.items)

    def texts(self, input: Any, context: Mapping[str, Any]) -> tuple[str, ...]:
        """The secrets that a job was given."""
        found = {*secret_texts(input, self.input), *secret_texts(dict(context), self.context)}
        return tuple(sorted(found, key=len, reverse=True))

    def snapshot(self, document: dict[str, Any]) -> dict[str, Any]:
        """A snapshot, or another document of the job with `input`, `context` and `phases`, for others' eyes."""
        document = hidden(document)
        if self.is_empty:
            return document
        texts = self.texts(document.get("input"), document.get("context") or {})
        shown = {**document}
        if "input" in shown:
            shown["input"] = masked(shown["input"], self.input)
        if "context" in shown:
            shown["context"] = masked(shown["context"], self.context)
        for phase, of_phase in (document.get("phases") or {}).items():
            steps = {name: self._sub_step(key_of(phase, name), step) for name, step in of_phase["sub_steps"].items()}
            shown["phases"] = {**shown["phases"], phase: {**of_phase, "sub_steps": steps}}
        found: dict[str, Any] = without(shown, texts)
        return found

    def _sub_step(self, key: str, sub_step: dict[str, Any]) -> dict[str, Any]:
        mask = (self.results or {}).get(key, False)
        return {**sub_step, "result": masked(sub_step["result"], mask)} if mask else sub_step

    def data(self, type: str, data: dict[str, Any], texts: tuple[str, ...] = ()) -> dict[str, Any]:
        """What an event says, for others' eyes."""
        data = hidden(data)
        if self.is_empty:
            return data
        shown = dict(data)
        if (field := _INPUT_OF.get(type)) and field in shown:
            shown[field] = masked(shown[field], self.input)
        for field in _CONTEXT_OF.get(type, ()):
            if field in shown:
                shown[field] = masked(shown[field], self.context)
        if type == "SubStepCheckpointed" and "set" in shown.get("draft", {}):
            shown["draft"] = {**shown["draft"], "set": masked(shown["draft"]["set"], self.context)}
        if type == "SubStepExpanded" and (mask := (self.items or {}).get(key_of(shown["phase"], shown["sub_step"]))):
            shown["items"] = [{**item, "input": masked(item.get("input"), mask)} for item in shown["items"]]
        if "result" in shown and "sub_step" in shown:
            mask = (self.results or {}).get(key_of(shown["phase"], shown["sub_step"]), False)
            shown["result"] = masked(shown["result"], mask)
        found: dict[str, Any] = without(shown, texts)
        return found


def without(value: Any, texts: tuple[str, ...]) -> Any:
    """The value with those texts masked, wherever they stand."""
    if not texts:
        return value
    if isinstance(value, str):
        for text in texts:
            value = value.replace(text, MASK)
        return value
    if isinstance(value, dict):
        return {without(name, texts): without(part, texts) for name, part in value.items()}
    if isinstance(value, list):
        return [without(part, texts) for part in value]
    return value
