"""Typed Python values to plain JSON and back, through pydantic; what would not come back as it was is refused."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from types import NoneType
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from steplog.eventstore.codec import decode, encode
from steplog.eventstore.errors import PayloadRefused


def dump(value: object, annotation: Any, path: str) -> Any:
    """The plain JSON of a value of that type. Raises PayloadRefused with the path of what would come back changed.

    Without a type (`Any`) only plain JSON and pydantic models are taken: a tuple would come back as a list.
    """
    if value is None and annotation in (None, NoneType, Any):
        return None
    if annotation is Any and isinstance(value, BaseModel):
        annotation = type(value)
    if annotation is Any or (annotation is type(value) and annotation in (str, bool, int, NoneType)):
        return decode(encode(value, path=path))
    encoded = encode(_serialised(value, annotation, path), path=path)
    _refuse_changed(value, _read_back(encoded, annotation, path), path)
    return decode(encoded)


def load(plain: Any, annotation: Any) -> Any:
    """The typed value of recorded JSON, a copy that shares nothing with it.

    Raises pydantic's ValidationError where it does not fit.
    """
    encoded = encode(plain, bytes_max=sys.maxsize)
    return decode(encoded) if annotation is Any else adapter(annotation).validate_json(encoded)


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


def _read_back(encoded: bytes, annotation: Any, path: str) -> Any:
    try:
        return adapter(annotation).validate_json(encoded)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise PayloadRefused(f"{path}{at}", f"it could not be read back: {first['msg']}") from error


def _refuse_changed(value: object, back: object, path: str) -> None:
    """Pydantic writes secrets as stars and, under `Any`, NaN as null and tuples as lists, all without a word."""
    if isinstance(value, (SecretStr, SecretBytes)):
        raise PayloadRefused(path, "a secret does not go into the log: bring it to the handler with use()")
    parts, found = _parts(value), _parts(back)
    if parts is None or found is None:
        same = value == back and (type(value) is type(back) or not isinstance(value, Enum))
    else:
        same = isinstance(value, type(back)) and parts.keys() == found.keys()
    if not same:
        raise PayloadRefused(path, f"{type(value).__qualname__} would come back as {type(back).__qualname__}")
    for key, part in (parts or {}).items():
        at = f"[{key}]" if isinstance(value, (list, tuple)) else f".{key}"
        _refuse_changed(part, (found or {})[key], f"{path}{at}")


def _parts(value: object) -> dict[Any, object] | None:
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


def input_hash(input: Any) -> str:
    """What tells a recorded input from another one where a key is asked for again."""
    return sha256(encode(input)).hexdigest()
