"""Typed Python values to plain JSON and back, through pydantic; what would not come back as it was is refused.

Secrets are sealed in `dump` and opened in `load`, and nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from types import NoneType
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticSerializationError

from steplog.engine.errors import SecretsClosed
from steplog.engine.secret_values import NOT_IN_PLAIN, holds_secrets, parts_of, texts_of, with_secrets
from steplog.eventstore.codec import decode, encode
from steplog.eventstore.errors import PayloadRefused
from steplog.eventstore.sealed import SEALED, Sealed, may_hold_sealed, with_sealed

T = TypeVar("T")


class Seals(Protocol):
    """What seals secrets and opens them: a job's vault."""

    def seal(self, text: str, path: str) -> Any:
        """The secret as the log keeps it. Raises PayloadRefused with the path."""
        ...

    def open(self, sealed: Sealed) -> str:
        """The secret in plain. Raises SecretsClosed, SecretsErased."""
        ...

    def refuse_plain(self, encoded: bytes, path: str) -> None:
        """Raise PayloadRefused where it has a known secret in plain."""
        ...


def dump(value: object, annotation: Any, path: str, vault: Seals | None = None) -> Any:
    """The plain JSON of a value of that type, its secrets sealed.

    Raises PayloadRefused with the path of what would come back changed, and of a secret where nothing seals it. Without
    a type (`Any`) only plain JSON and pydantic models are taken: a tuple would come back as a list.
    """
    if value is None and annotation in (None, NoneType, Any):
        return None
    if annotation is Any and isinstance(value, BaseModel):
        annotation = type(value)
    if annotation is Any or (annotation is type(value) and annotation in (str, bool, int, NoneType)):
        return plain(value, path, vault)
    serialised = _serialised(value, annotation, path)
    secrets = texts_of(value) if holds_secrets(annotation) else []
    clear = with_secrets(value, serialised, path, lambda text, at: text) if secrets else serialised
    encoded = encode(clear, path=path)
    _refuse_changed(value, _read_back(encoded, annotation, path, tell=not secrets), path, declared=bool(secrets))
    if not secrets:
        return _checked(encoded, path, vault)
    _refuse_own_form(encoded, path)
    return _sealed(value, serialised, secrets, path, vault)


def _sealed(value: object, serialised: Any, secrets: list[str], path: str, vault: Seals | None) -> Any:
    sealed: list[str] = []

    def seal(text: str, at: str) -> Any:
        if vault is None:
            raise PayloadRefused(at, NOT_IN_PLAIN)
        sealed.append(text)
        return vault.seal(text, at)

    made = with_secrets(value, serialised, path, seal)
    if sorted(sealed) != sorted(secrets):
        raise PayloadRefused(path, "a secret stands where its place in the JSON cannot be told")
    encoded = encode(made, path=path)
    if vault is not None:
        vault.refuse_plain(encoded, path)
    return decode(encoded)


def plain(value: object, path: str, vault: Seals | None = None) -> Any:
    """A plain JSON value as the log keeps it. Raises PayloadRefused with the path."""
    return _checked(encode(value, path=path), path, vault)


def _checked(encoded: bytes, path: str, vault: Seals | None) -> Any:
    _refuse_own_form(encoded, path)
    if vault is not None:
        vault.refuse_plain(encoded, path)
    return decode(encoded)


def _refuse_own_form(encoded: bytes, path: str) -> None:
    if may_hold_sealed(encoded):
        raise PayloadRefused(path, f"{SEALED!r} is how the log names what it holds sealed, and no key of other objects")


def load(recorded: Any, annotation: Any, vault: Seals | None = None) -> Any:
    """The typed value of recorded JSON, a copy that shares nothing with it, its secrets opened.

    Raises pydantic's ValidationError where it does not fit, and SecretsClosed where a secret cannot be opened.
    """
    encoded = encode(recorded, bytes_max=sys.maxsize)
    if may_hold_sealed(encoded):
        if vault is None:
            raise SecretsClosed(None, "nothing is here to open them")
        encoded = encode(with_sealed(recorded, vault.open), bytes_max=sys.maxsize)
    return decode(encoded) if annotation is Any else validated(adapter(annotation).validate_json, encoded)


def validated(validate: Callable[[Any], T], value: Any) -> T:
    """The value as its type takes it. Raises ValidationError, whatever a validator of the type's own raises."""
    try:
        return validate(value)
    except ValidationError:
        raise
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
        raised = InitErrorDetails(type=PydanticCustomError("raised", "its validator raised {error}", said), input=value)
        raise ValidationError.from_exception_data("value", [raised]) from error


def problems_of(error: ValidationError) -> list[str]:
    """What did not fit, as `path: why`."""
    return [
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" if each["loc"] else str(each["msg"])
        for each in error.errors(include_url=False, include_input=False)
    ]


@lru_cache(maxsize=1024)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def adapter(annotation: Any) -> TypeAdapter[Any]:
    """Pydantic's adapter for a type."""
    try:
        return _cached_adapter(annotation)
    except TypeError:
        return TypeAdapter(annotation)


def _serialised(value: object, annotation: Any, path: str) -> Any:
    try:
        # What pydantic has no form for becomes null here and is found by comparing, where its path is known.
        return adapter(annotation).dump_python(value, mode="json", warnings="error", fallback=lambda unknown: None)
    except PydanticSerializationError as error:
        raise PayloadRefused(path, str(error).splitlines()[0]) from error


def _read_back(encoded: bytes, annotation: Any, path: str, *, tell: bool) -> Any:
    """The value again; why that cannot be is only told where it shows no secret."""
    try:
        return validated(adapter(annotation).validate_json, encoded)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        why = f"it could not be read back: {first['msg' if tell else 'type']}"
        raise PayloadRefused(f"{path}{at}", why) from (error if tell else None)


def _refuse_changed(value: object, back: object, path: str, declared: bool = False) -> None:
    """Pydantic writes secrets as stars and, under `Any`, NaN as null and tuples as lists, all without a word."""
    if isinstance(value, (SecretStr, SecretBytes)) and not declared:
        raise PayloadRefused(path, NOT_IN_PLAIN)
    parts, found = parts_of(value), parts_of(back)
    if parts is None or found is None:
        same = value == back and (type(value) is type(back) or not isinstance(value, Enum))
    else:
        same = isinstance(value, type(back)) and parts.keys() == found.keys()
    if not same:
        raise PayloadRefused(path, f"{type(value).__qualname__} would come back as {type(back).__qualname__}")
    for key, part in (parts or {}).items():
        at = f"[{key}]" if isinstance(value, (list, tuple)) else f".{key}"
        _refuse_changed(part, (found or {})[key], f"{path}{at}", declared)


def input_hash(input: Any) -> str:
    """What tells a recorded input from another one where a key is asked for again."""
    return sha256(encode(input)).hexdigest()
