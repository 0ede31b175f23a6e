"""How the job's context changes, and who is remembered to have written what."""

from __future__ import annotations

from typing import Any

from steplog.projections.state import State

OPERATOR = ""
"""The writer of context fields that no sub-step wrote."""


def write_context(state: State, data: dict[str, Any], by: tuple[str, int] | None) -> None:
    """Set and unset fields; `by` is the writer and the version, None where earlier values come back."""
    state["context"].update(data.get("set", {}))
    for name in data.get("unset", []):
        state["context"].pop(name, None)
    if by is not None:
        for name in (*data.get("set", {}), *data.get("unset", [])):
            state["writers"].setdefault(name, {})[by[0]] = by[1]
