"""A form from a JSON Schema, and the value that a filled one stands for. Pure functions.

Objects become groups, simple values inputs, everything else a box for JSON. What is left empty is left out, so that
the schema's default holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from steplog.api.problems import invalid

DEPTH_MAX = 4
_INPUT = "input"
_SIMPLE = {"string": "text", "integer": "number", "number": "number", "boolean": "bool"}


@dataclass(frozen=True, slots=True)
class FormField:
    """One input, or a group of them. `name` is the path from the root, parts apart by slashes."""

    name: str
    label: str
    kind: str
    """text, password, number, bool, choice, json or group."""
    hint: str = ""
    default: str = ""
    required: bool = False
    value: str = ""
    choices: tuple[str, ...] = ()
    fields: tuple[FormField, ...] = field(default=())


def fields_of(schema: Mapping[str, Any], given: Mapping[str, str]) -> list[FormField]:
    """The inputs of a form for the schema, with what was given already."""
    resolved = _resolved(schema, schema)
    if resolved.get("type") == "object" and "properties" in resolved:
        return list(_group(_INPUT, resolved, schema, given, 0))
    return [_field(_INPUT, "input", resolved, schema, given, required=True, depth=0)]


def value_of(fields: list[FormField], given: Mapping[str, str]) -> Any:
    """What a filled form stands for. Raises Problem where a box does not hold JSON."""
    if len(fields) == 1 and fields[0].name == _INPUT:
        return _read(fields[0], given.get(_INPUT, ""))
    return _object(fields, given)


def _object(fields: tuple[FormField, ...] | list[FormField], given: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in fields:
        name = each.name.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        if each.kind == "group":
            if inner := _object(each.fields, given):
                found[name] = inner
        elif text := given.get(each.name, ""):
            found[name] = _read(each, text)
    return found


def _read(each: FormField, text: str) -> Any:
    if each.kind in ("text", "password", "choice"):
        return text
    if each.kind == "bool":
        return text == "true"
    try:
        return orjson.loads(text)
    except ValueError:
        wanted = "a number" if each.kind == "number" else "JSON: text stands in quotes"
        raise invalid(f"{each.label} is not {wanted}", field=each.name) from None


def _group(
    path: str, schema: Mapping[str, Any], root: Mapping[str, Any], given: Mapping[str, str], depth: int
) -> list[FormField]:
    required = schema.get("required", ())
    return [
        _field(
            f"{path}/{_part(name)}", name, _resolved(each, root), root, given, required=name in required, depth=depth
        )
        for name, each in schema.get("properties", {}).items()
    ]


def _field(
    path: str,
    label: str,
    schema: Mapping[str, Any],
    root: Mapping[str, Any],
    given: Mapping[str, str],
    *,
    required: bool,
    depth: int,
) -> FormField:
    hint = str(schema.get("description", ""))
    if schema.get("type") == "object" and schema.get("properties") and depth < DEPTH_MAX:
        inner = _group(path, schema, root, given, depth + 1)
        return FormField(path, label, "group", hint, fields=tuple(inner))
    kind = _SIMPLE.get(str(schema.get("type")), "json")
    choices = tuple(str(each) for each in schema.get("enum", ()) if isinstance(each, str))
    if choices:
        kind = "choice"
    secret = schema.get("writeOnly") or schema.get("format") == "password"
    default = "" if secret or schema.get("default") is None else orjson.dumps(schema["default"]).decode().strip('"')
    return FormField(
        path,
        label,
        "password" if secret and kind == "text" else kind,
        hint,
        default,
        required and kind not in ("bool", "choice"),
        "" if secret else given.get(path, ""),
        choices,
    )


def _resolved(schema: Any, root: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """The schema behind references, and of a value that may be null the schema of one that is not."""
    if not isinstance(schema, dict) or depth > DEPTH_MAX:
        return {}
    told = {name: schema[name] for name in ("default", "description", "writeOnly") if name in schema}
    if reference := schema.get("$ref"):
        target: Any = root
        for part in str(reference).removeprefix("#/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
        return _resolved(target, root, depth + 1) | told
    options = [each for each in schema.get("anyOf", ()) if isinstance(each, dict) and each.get("type") != "null"]
    if len(options) == 1:
        return _resolved(options[0], root, depth + 1) | told
    return dict(schema)


def _part(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
