"""Where secrets stand in a typed value and in its JSON: which types declare any, and what is put in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Final, get_args, get_origin, get_type_hints

from pydantic import BaseModel, SecretBytes, SecretStr
from typing_extensions import is_typeddict

from steplog.eventstore.errors import PayloadRefused

NOT_IN_PLAIN: Final = (
    "a secret does not go into the log in plain: configure STEPLOG_KEYS with the extra steplog[secrets], or bring it "
    "to the handler with use()"
)
SECRETS = (SecretStr, SecretBytes)


@lru_cache(maxsize=1024)
def _holds(annotation: Any) -> bool:
    return _declares(annotation, set())


def holds_secrets(annotation: Any) -> bool:
    """Whether values of that type may have secrets: `SecretStr`, `SecretBytes`, at any depth."""
    try:
        return _holds(annotation)
    except TypeError:  # no hash
        return _declares(annotation, set())


def _declares(annotation: Any, seen: set[int]) -> bool:
    if id(annotation) in seen:
        return False
    seen.add(id(annotation))
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, SECRETS):
            return True
        return any(_declares(inner, seen) for inner in _types_in(annotation))
    inner = (*get_args(annotation), getattr(annotation, "__value__", None))
    return any(_declares(each, seen) for each in inner if each is not None)


def _types_in(kind: type) -> Iterable[Any]:
    """The types of a class's fields."""
    if issubclass(kind, BaseModel):
        return [field.annotation for field in kind.model_fields.values()]
    if is_dataclass(kind) or is_typeddict(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        return get_type_hints(kind).values()
    return ()


def texts_of(value: object) -> list[str]:
    """The secrets in a typed value, each as often as it stands there."""
    if isinstance(value, SecretStr):
        return [value.get_secret_value()]
    if isinstance(value, SecretBytes):
        return [value.get_secret_value().decode(errors="backslashreplace")]
    if isinstance(value, (set, frozenset)):
        return [text for part in value for text in texts_of(part)]
    return [text for part in (parts_of(value) or {}).values() for text in texts_of(part)]


def given_texts(given: object, annotation: Any) -> list[str]:
    """What may be secrets of a value that was not taken for one of that type: all its texts, if that declares any."""
    if not holds_secrets(annotation):
        return []
    if isinstance(given, str):
        return [given]
    inner = parts_of(given) or {}
    return texts_of(given) + [text for part in inner.values() for text in given_texts(part, annotation)]


def text_of(secret: SecretStr | SecretBytes, path: str) -> str:
    """What the secret is. Raises PayloadRefused for bytes that are no text."""
    value = secret.get_secret_value()
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PayloadRefused(path, "secret bytes are kept as text: encode them in base64") from None


def with_secrets(value: object, serialised: Any, path: str, put: Callable[[str, str], Any]) -> Any:
    """The JSON that pydantic made of the value, with what `put` makes of each secret and its path in its place."""
    if isinstance(value, SECRETS):
        return put(text_of(value, path), path)
    parts = parts_of(value)
    if not parts:
        return serialised
    if isinstance(serialised, list) and isinstance(value, (list, tuple)) and len(serialised) == len(value):
        pairs = zip(value, serialised, strict=True)
        return [with_secrets(part, made, f"{path}[{place}]", put) for place, (part, made) in enumerate(pairs)]
    if not isinstance(serialised, dict):
        return serialised
    if isinstance(value, dict) and len(serialised) == len(value):
        triples = zip(value.values(), serialised.items(), strict=True)
        return {name: with_secrets(part, made, f"{path}.{name}", put) for part, (name, made) in triples}
    placed = {
        name: with_secrets(parts[name], made, f"{path}.{name}", put)
        for name, made in serialised.items()
        if name in parts
    }
    return {**serialised, **placed}


def parts_of(value: object) -> dict[Any, object] | None:
    """What a container holds, by key, index or name; fields that are not to be stored are left out."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, BaseModel):
        stored = [name for name, field in type(value).model_fields.items() if not field.exclude]
        return {name: getattr(value, name) for name in stored} | (value.model_extra or {})
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None
