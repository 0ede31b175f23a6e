"""The job's shared, typed state as handlers see it: a copy to write on, whose changes become an event."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from steplog.engine.values import Seals, dump, load
from steplog.eventstore.codec import encode


class Context(BaseModel):
    """The base of a workflow's context: every field has a default, and assignments are checked.

    The log keeps fields by their names, whatever aliases they have.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, populate_by_name=True)


C = TypeVar("C", bound=Context)
Fields = dict[str, Any]


def open_draft(kind: type[C], recorded: Fields, draft: Fields | None = None, *, vault: Seals | None) -> C:
    """A copy of the recorded context, typed, with what an attempt's last checkpoint had changed already."""
    values = {**recorded, **(draft or {}).get("set", {})}
    for name in (draft or {}).get("unset", ()):
        values.pop(name, None)
    opened: C = load(values, kind, vault)
    return opened


def fields_of(context: Context, vault: Seals | None) -> Fields:
    """The context's fields as plain JSON. Raises PayloadRefused with the path of one that has no JSON form."""
    return {
        name: dump(getattr(context, name), type(context).model_fields[name].annotation, f"context.{name}", vault)
        for name in type(context).model_fields
    }


def changes(before: Fields, after: Fields) -> Fields:
    """What was set between two readings, compared as canonical JSON so that changes in place count."""
    return {name: value for name, value in after.items() if encode(value) != encode(before.get(name))}
