"""Typed Python values to plain JSON and back, through pydantic; what would change silently is refused."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import PydanticSerializationError

from steplog.eventstore.codec import decode, encode
from steplog.eventstore.errors import PayloadRefused


def dump(value: object, annotation: Any, path: str) -> Any:
    """The plain JSON of a value of that type. Raises PayloadRefused with the path of what has none.

    Without a type (`Any`) only plain JSON and pydantic models are taken: a tuple would come back as a list.
    """
    if annotation is Any and isinstance(value, BaseModel):
        annotation = type(value)
    plain: Any = value
    if annotation is not Any and not (value is None or type(value) in (str, bool, int)):
        _refuse_lossy(value, path)
        plain = _serialised(value, annotation, path)
    return decode(encode(plain, path=path))


def load(plain: Any, annotation: Any) -> Any:
    """The typed value of recorded JSON. Raises pydantic's ValidationError where it does not fit."""
    return plain if annotation is Any else adapter(annotation).validate_json(encode(plain))


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
        return adapter(annotation).dump_python(value, mode="json", warnings="error")
    except PydanticSerializationError as error:
        raise PayloadRefused(path, str(error).splitlines()[0]) from error


def _refuse_lossy(value: object, path: str) -> None:
    """Pydantic turns NaN into null and secrets into stars without a word; find them before it does."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PayloadRefused(path, f"{value} has no JSON form")
    if isinstance(value, (SecretStr, SecretBytes)):
        raise PayloadRefused(path, "a secret does not go into the log: bring it to the handler with use()")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_lossy(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            _refuse_lossy(item, f"{path}[{index}]")
    elif hasattr(value, "__pydantic_fields__") or hasattr(value, "__dataclass_fields__"):
        for name, item in vars(value).items():
            _refuse_lossy(item, f"{path}.{name}")
