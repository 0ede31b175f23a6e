"""JSON Schemas of what a workflow takes and shares; what is secret is marked `writeOnly`."""

from __future__ import annotations

from typing import Any

from pydantic import PydanticUserError
from pydantic.errors import PydanticInvalidForJsonSchema

from steplog.engine.definition import AnyDefinition
from steplog.engine.masking import Mask, mask_of
from steplog.engine.values import adapter


def input_schema(definition: AnyDefinition) -> dict[str, Any]:
    """What `submit` takes."""
    return _schema(definition.input_type)


def context_schema(definition: AnyDefinition) -> dict[str, Any]:
    """What the job's context holds."""
    return _schema(definition.context_type)


def _schema(kind: Any) -> dict[str, Any]:
    try:
        schema = adapter(kind).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return {"description": "no JSON Schema can be made of this type"}
    return _marked(schema, mask_of(kind))


def _marked(schema: dict[str, Any], mask: Mask) -> dict[str, Any]:
    """The schema with the fields marked that are secret, and their defaults left out."""
    if not isinstance(mask, dict) or "properties" not in schema:
        return schema
    properties = dict(schema["properties"])
    for name, inner in mask.items():
        if name in properties and inner is True:
            kept = {key: value for key, value in properties[name].items() if key not in ("default", "examples")}
            properties[name] = {**kept, "writeOnly": True}
    return {**schema, "properties": properties}
